//! The `topsail` command.

/// A request of the bundled proxy allocates some thirty times: the system's allocator takes a fifth more CPU time for all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    topsail::cli::main()
}
