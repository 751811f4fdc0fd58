//! Memory statistics of the process.

use serde_json::{Value, json};

/// In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Private memory.
    pub(crate) allocated: u64,
    /// Reserved data and stack.
    pub(crate) heap: u64,
    /// Resident memory.
    pub(crate) resident: u64,
}

/// Reads them from `/proc`; zero where there is none.
pub(crate) fn read() -> Memory {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    parse(&statm, rustix::param::page_size() as u64)
}

/// Parses `size resident shared text lib data dt`, in pages.
fn parse(statm: &str, page_size: u64) -> Memory {
    let pages: Vec<u64> = statm
        .split_whitespace()
        .filter_map(|field| field.parse().ok())
        .collect();
    let field = |at: usize| pages.get(at).copied().unwrap_or(0) * page_size;
    Memory {
        allocated: field(1).saturating_sub(field(2)),
        heap: field(5),
        resident: field(1),
    }
}

/// `envoy.admin.v3.Memory`; what only Envoy's allocator tells is 0.
pub(crate) fn json() -> Value {
    let memory = read();
    json!({
        "allocated": memory.allocated.to_string(),
        "heap_size": memory.heap.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": memory.resident.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_pages() {
        let memory = parse("100 25 5 4 0 50 0\n", 4096);
        assert_eq!(
            (memory.allocated, memory.heap, memory.resident),
            (81_920, 204_800, 102_400)
        );
        assert_eq!(parse("", 4096), Memory::default());
        assert!(read().resident > 1 << 20);
    }
}
