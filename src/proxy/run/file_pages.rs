//! Gives back the pages of the program's file that only start-up and changes of configuration needed.
//!
//! Reading a bootstrap, decoding resources and building what they ask for touches more than half of the program's code, and
//! the system maps at least 64 KiB around whatever is touched. None of it is needed to serve requests. Code and constants
//! are never written, so that they can be given back at any time: who needs some gets it from the page cache again.

use std::ffi::c_void;
use std::ops::Range;
use std::{fs, io, ptr};

use rustix::mm::{Advice, madvise};

/// Gives them all back; those in use come again by themselves, within a few microseconds each.
///
/// # Errors
/// When the system does not say where they are or does not take them.
pub(super) fn give_back() -> io::Result<()> {
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/smaps")?;
    let mappings = mappings(&maps);
    let constant = mappings.filter(|mapping| mapping.is_constant() && Some(mapping.path) == program.to_str());
    constant.filter_map(|mapping| mapping.place).try_for_each(forget)
}

/// A part of the address space, as `/proc/self/smaps` tells it (`proc_pid_smaps(5)`).
struct Mapping<'a> {
    place: Option<Range<usize>>,
    permissions: &'a str,
    path: &'a str,
    /// kB of it that are other than in the file, in memory or swapped out.
    own: u64,
}

impl Mapping<'_> {
    /// Whether nobody can write to it and nobody has: what is relocated when the program is loaded cannot be written to
    /// later either, but is not what the file has.
    fn is_constant(&self) -> bool {
        matches!(self.permissions, "r-xp" | "r--p") && self.own == 0
    }
}

fn mappings(maps: &str) -> impl Iterator<Item = Mapping<'_>> {
    let mut lines = maps.lines().peekable();
    std::iter::from_fn(move || {
        // Address, permissions, offset, device, inode and, after blanks, the path, which may have blanks in it.
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

/// Lines about a mapping begin with a key and a colon.
fn is_head(line: &str) -> bool {
    !line.split(' ').next().is_some_and(|word| word.ends_with(':'))
}

/// `Key:    12 kB`.
fn detail(line: &str) -> (&str, u64) {
    let (key, value) = line.split_once(':').unwrap_or_default();
    (key, value.trim().trim_end_matches(" kB").parse().unwrap_or(0))
}

#[expect(unsafe_code, reason = "there is no safe way to say it, and 10 MB of 17 depend on it")]
fn forget(place: Range<usize>) -> io::Result<()> {
    let start: *mut c_void = ptr::with_exposed_provenance_mut(place.start);
    // SAFETY: the range is a mapping of this process that nobody can write to and of which no page is other than in the
    // file, so what is read or run there is the same before and after. The mapping itself stays.
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
