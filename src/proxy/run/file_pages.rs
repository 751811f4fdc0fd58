//! Releases pages of the executable that only start-up and configuration changes need.
//!
//! Parsing a bootstrap and compiling resources touches more than half of the code, and the kernel maps at least 64 KiB
//! around each access. Serving requests needs none of it. Code and constants are never written, so their pages can be
//! dropped at any time: a later access gets them from the page cache.

use std::ffi::c_void;
use std::ops::Range;
use std::{fs, io, ptr};

use rustix::mm::{Advice, madvise};

/// Releases all such pages; those in use are mapped again on access, within microseconds.
///
/// # Errors
/// If the kernel does not tell the mappings or refuses.
pub(super) fn give_back() -> io::Result<()> {
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/smaps")?;
    let mappings = mappings(&maps);
    let constant = mappings.filter(|mapping| mapping.is_constant() && Some(mapping.path) == program.to_str());
    constant.filter_map(|mapping| mapping.place).try_for_each(forget)
}

/// A mapping of the address space, as in `/proc/self/smaps` (`proc_pid_smaps(5)`).
struct Mapping<'a> {
    place: Option<Range<usize>>,
    permissions: &'a str,
    path: &'a str,
    /// kB of it that differ from the file, in memory or swapped out.
    own: u64,
}

impl Mapping<'_> {
    /// Whether it is not writable and identical to the file: relocated data is not writable after loading either, but
    /// differs from the file.
    fn is_constant(&self) -> bool {
        matches!(self.permissions, "r-xp" | "r--p") && self.own == 0
    }
}

fn mappings(maps: &str) -> impl Iterator<Item = Mapping<'_>> {
    let mut lines = maps.lines().peekable();
    std::iter::from_fn(move || {
        // Address, permissions, offset, device, inode and, after blanks, a path that may contain blanks.
        let mut head = lines.next()?.splitn(6, ' ');
        let (place, permissions) = (head.next()?, head.next()?);
        let path = head.nth(3).unwrap_or_default().trim_start();
        let address = |text| usize::from_str_radix(text, 16).ok();
        let place = place
            .split_once('-')
            .and_then(|(start, end)| Some(address(start)?..address(end)?));
        let mut own = 0;
        while let Some((key, value)) = lines.next_if(|line| !is_head(line)).map(detail) {
            if matches!(key, "Anonymous" | "Swap") {
                own += value;
            }
        }
        Some(Mapping {
            place,
            permissions,
            path,
            own,
        })
    })
}

/// Detail lines begin with a key and a colon, unlike the line of a mapping.
fn is_head(line: &str) -> bool {
    !line.split(' ').next().is_some_and(|word| word.ends_with(':'))
}

/// Parses `Key:    12 kB`.
fn detail(line: &str) -> (&str, u64) {
    let (key, value) = line.split_once(':').unwrap_or_default();
    (key, value.trim().trim_end_matches(" kB").parse().unwrap_or(0))
}

#[expect(unsafe_code, reason = "there is no safe way to say it, and 10 MB of 17 depend on it")]
fn forget(place: Range<usize>) -> io::Result<()> {
    let start: *mut c_void = ptr::with_exposed_provenance_mut(place.start);
    // SAFETY: the range is a mapping of this process that is not writable and of which no page differs from the file,
    // so its contents are the same before and after. The mapping itself stays.
    unsafe { madvise(start, place.len(), Advice::LinuxDontNeed) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
563a7e054000-563a7e6aa000 r--p 00000000 fe:00 5311170                    /opt/a b/topsail
Size:               6488 kB
Private_Dirty:      2480 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd mr mw me sd
563a7e6aa000-563a7f94b000 r-xp 00655000 fe:00 5311170                    /opt/a b/topsail
Anonymous:             0 kB
563a7f94b000-563a7f9e9000 r--p 018f5000 fe:00 5311170                    /opt/a b/topsail
Anonymous:           632 kB
563a7f9e9000-563a7f9ee000 rw-p 01992000 fe:00 5311170                    /opt/a b/topsail
Anonymous:             0 kB
7f471a386000-7f471a4ec000 r-xp 00026000 fe:00 1583                       /usr/lib/x86_64-linux-gnu/libc.so.6
Anonymous:             0 kB
7f471a4ec000-7f471a4ed000 r--p 00000000 fe:00 5311170                    /opt/a b/topsail
Anonymous:             0 kB
Swap:                  4 kB
7ffc1a7f3000-7ffc1a7f5000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0
";

    #[test]
    fn only_what_is_as_in_the_file_and_stays_so_is_given_back() {
        let constant: Vec<_> = mappings(MAPS)
            .filter(|mapping| mapping.is_constant() && mapping.path == "/opt/a b/topsail")
            .filter_map(|mapping| mapping.place)
            .collect();
        assert_eq!(
            constant,
            [0x563a_7e05_4000..0x563a_7e6a_a000, 0x563a_7e6a_a000..0x563a_7f94_b000]
        );
        assert_eq!(mappings(MAPS).count(), 8);
    }

    #[test]
    fn a_program_goes_on_without_its_pages() {
        for _ in 0..3 {
            give_back().unwrap();
            assert_eq!(detail("Anonymous:           632 kB"), ("Anonymous", 632));
        }
    }
}
