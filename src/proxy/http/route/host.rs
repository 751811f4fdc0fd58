//! The index of virtual hosts by domain: exact, then the longest suffix wildcard, then the longest prefix wildcard,
//! then `*`.

use std::collections::HashMap;
use std::sync::Arc;

use super::VirtualHost;

/// The index. Domains are compared case-insensitively.
#[derive(Debug, Default)]
pub(crate) struct HostIndex {
    exact: HashMap<Box<str>, Arc<VirtualHost>>,
    /// `*.example.com` without the star, longest first.
    suffixes: Vec<(Box<str>, Arc<VirtualHost>)>,
    /// `example.*` without the star, longest first.
    prefixes: Vec<(Box<str>, Arc<VirtualHost>)>,
    any: Option<Arc<VirtualHost>>,
}

impl HostIndex {
    /// An index of these virtual hosts, each with its domains.
    ///
    /// # Errors
    /// A domain that two of them have.
    pub(crate) fn new(hosts: Vec<(Arc<VirtualHost>, Vec<String>)>) -> Result<Self, String> {
        let mut index = Self::default();
        for (host, domains) in hosts {
            for domain in domains {
                index.insert(domain.to_ascii_lowercase(), &host)?;
            }
        }
        for wildcards in [&mut index.suffixes, &mut index.prefixes] {
            wildcards.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
            if let Some(twice) = wildcards.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(twice[0].0.to_string());
            }
        }
        Ok(index)
    }

    fn insert(&mut self, domain: String, host: &Arc<VirtualHost>) -> Result<(), String> {
        if domain == "*" {
            return match self.any.replace(host.clone()) {
                None => Ok(()),
                Some(_) => Err(domain),
            };
        }
        if let Some(suffix) = domain.strip_prefix('*') {
            self.suffixes.push((suffix.into(), host.clone()));
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.prefixes.push((prefix.into(), host.clone()));
        } else if self.exact.insert(domain.clone().into(), host.clone()).is_some() {
            return Err(domain);
        }
        Ok(())
    }

    /// The virtual host for an authority.
    pub(crate) fn find(&self, host: &str, ignore_port: bool) -> Option<&Arc<VirtualHost>> {
        if self.exact.is_empty() && self.suffixes.is_empty() && self.prefixes.is_empty() {
            return self.any.as_ref();
        }
        let host = if ignore_port { without_port(host) } else { host };
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.find_lower(&host.to_ascii_lowercase());
        }
        self.find_lower(host)
    }

    fn find_lower(&self, host: &str) -> Option<&Arc<VirtualHost>> {
        // A wildcard stands for at least one character.
        let longer = |text: &str| host.len() > text.len();
        let suffix = |(text, _): &&(Box<str>, _)| longer(text) && host.ends_with(&**text);
        let prefix = |(text, _): &&(Box<str>, _)| longer(text) && host.starts_with(&**text);
        self.exact
            .get(host)
            .or_else(|| self.suffixes.iter().find(suffix).map(|(_, found)| found))
            .or_else(|| self.prefixes.iter().find(prefix).map(|(_, found)| found))
            .or(self.any.as_ref())
    }
}

/// The host of an authority: `a:80` and `[::1]:80` without the port.
pub(crate) fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if authority[colon + 1..].bytes().all(|byte| byte.is_ascii_digit()) => {
            let host = &authority[..colon];
            // An IPv6 address without brackets has no port.
            let bare_v6 = host.contains(':') && !host.ends_with(']');
            if bare_v6 { authority } else { host }
        }
        Some(_) | None => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says which of these domains a host belongs to.
    fn finder<'a>(domains: &'a [&'a str]) -> impl Fn(&str, bool) -> Option<&'a str> {
        let hosts: Vec<_> = domains.iter().map(|_| Arc::new(VirtualHost::default())).collect();
        let named = hosts.iter().cloned().zip(domains);
        let index = HostIndex::new(named.map(|(host, domain)| (host, vec![(*domain).to_owned()])).collect()).unwrap();
        move |host, ignore_port| {
            let found = index.find(host, ignore_port)?;
            let place = hosts.iter().position(|host| Arc::ptr_eq(host, found));
            place.map(|place| domains[place])
        }
    }

    #[test]
    fn the_most_specific_domain_wins() {
        let find = finder(&["*", "a.example", "*.example", "*.b.example", "a.*"]);
        for (host, wanted) in [
            ("a.example", "a.example"),
            ("A.Example:80", "a.example"),
            ("x.example", "*.example"),
            ("x.b.example", "*.b.example"),
            ("a.other", "a.*"),
            ("other", "*"),
            (".example", "*"),
        ] {
            assert_eq!(find(host, true), Some(wanted), "{host}");
        }
    }

    #[test]
    fn ports_count_unless_they_are_ignored() {
        let find = finder(&["a:80", "b"]);
        assert_eq!(find("a:80", false), Some("a:80"));
        assert_eq!(find("b:80", false), None);
        assert_eq!(find("b:80", true), Some("b"));
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("::1"), "::1");
        assert_eq!(without_port("a.example"), "a.example");
    }

    #[test]
    fn no_two_virtual_hosts_share_a_domain() {
        let twice = |domain: &str| {
            let host = || (Arc::new(VirtualHost::default()), vec![domain.to_owned()]);
            HostIndex::new(vec![host(), host()]).unwrap_err()
        };
        assert_eq!(twice("A"), "a");
        assert_eq!(twice("*"), "*");
        assert_eq!(twice("*.a"), ".a");
    }
}
