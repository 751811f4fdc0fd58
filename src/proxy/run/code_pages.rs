//! Gives back the pages of the program's code that only start-up and changes of configuration needed.
//!
//! Reading a bootstrap, decoding resources and building what they ask for touches more than half of the program's code, and
//! the system maps at least 64 KiB around whatever is touched. None of it is needed to serve requests. Pages of code are
//! never written, so that they can be given back at any time: who needs one gets it from the page cache again.

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
    let maps = fs::read_to_string("/proc/self/maps")?;
    maps.lines()
        .filter_map(|line| code(line, program.to_str()?))
        .try_for_each(forget)
}

/// Where a line of `/proc/self/maps` says that code of the program is.
fn code(line: &str, program: &str) -> Option<Range<usize>> {
    // Address, permissions, offset, device, inode and, after blanks, the path, which may have blanks in it.
    let (place, rest) = line.split_once(' ')?;
    let (permissions, rest) = rest.split_once(' ')?;
    let path = rest.splitn(4, ' ').nth(3)?.trim_start();
    let (start, end) = place.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    (permissions == "r-xp" && path == program).then_some(address(start)?..address(end)?)
}

#[expect(unsafe_code, reason = "there is no safe way to say it, and 10 MB of 17 depend on it")]
fn forget(code: Range<usize>) -> io::Result<()> {
    let start: *mut c_void = ptr::with_exposed_provenance_mut(code.start);
    // SAFETY: the range is a mapping of this process that nobody can write to, so its pages are those of the file, and what
    // is read or run there is the same before and after. The mapping itself stays.
    unsafe { madvise(start, code.len(), Advice::LinuxDontNeed) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_itself_is_given_back() {
        let code = |line| code(line, "/opt/a b/topsail");
        let line = "563a7e6aa000-563a7f94b000 r-xp 00655000 fe:00 5311170                    /opt/a b/topsail";
        assert_eq!(code(line), Some(0x563a_7e6a_a000..0x563a_7f94_b000));
        for other in [
            "563a7f94b000-563a7f9e9000 r--p 018f5000 fe:00 5311170                    /opt/a b/topsail",
            "563a7f9e9000-563a7f9ee000 rw-p 01992000 fe:00 5311170                    /opt/a b/topsail",
            "7f471a386000-7f471a4ec000 r-xp 00026000 fe:00 1583                       /usr/lib/x86_64-linux-gnu/libc.so.6",
            "7ffc1a7f3000-7ffc1a7f5000 r-xp 00000000 00:00 0                          [vdso]",
            "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
    }

    #[test]
    fn a_program_goes_on_without_its_pages() {
        for _ in 0..3 {
            give_back().unwrap();
            assert_eq!(format!("{:?}", code("x", "y")), "None");
        }
    }
}
