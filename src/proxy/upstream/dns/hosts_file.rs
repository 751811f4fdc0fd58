//! `/etc/hosts`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses of a name that needs no DNS query: those in `/etc/hosts`, and the loopback addresses for `localhost`
/// (RFC 6761, section 6.3). The file is read each time, since it may have changed.
pub(super) fn addresses(name: &str, wanted: impl Fn(&IpAddr) -> bool) -> Vec<IpAddr> {
    // As c-ares: a file that cannot be read is an empty one.
    let file = fs::read("/etc/hosts").unwrap_or_default();
    let mut found = said(&String::from_utf8_lossy(&file), name);
    found.retain(&wanted);
    if is_local(name) {
        add_loopback(&mut found, wanted);
    }
    found
}

/// The addresses of a name in the text of a hosts file: each line has an address and names, up to a `#`.
fn said(text: &str, name: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    };
    text.lines().filter_map(address).collect()
}

/// Adds the loopback address of each wanted family that there is no address of.
fn add_loopback(found: &mut Vec<IpAddr>, wanted: impl Fn(&IpAddr) -> bool) {
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    for address in loopback.into_iter().filter(wanted) {
        if !found.iter().any(|known| known.is_ipv4() == address.is_ipv4()) {
            found.push(address);
        }
    }
}

fn is_local(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_say_several_things_of_a_name() {
        let file = "# comment\n\n127.0.0.1\tlocalhost\n10.0.0.1 Back.example back # front\n::2 front\n10.0.0.2 back\nnone back\n";
        let of = |name| said(file, name).iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(of("back"), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(of("back.example"), ["10.0.0.1"]);
        assert_eq!(of("front"), ["::2"]);
        assert!(of("none").is_empty() && of("10.0.0.1").is_empty());
    }

    #[test]
    fn localhost_is_here_whatever_the_file_says() {
        for name in ["localhost", "any.LocalHost"] {
            assert_eq!(addresses(name, IpAddr::is_ipv4), [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
            assert_eq!(addresses(name, IpAddr::is_ipv6), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        }
        assert!(addresses("localhost.example", |_| true).is_empty());
        let mut found = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        add_loopback(&mut found, |_| true);
        assert_eq!(found, [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
    }
}
