//! The memory available to this process. Knows nothing of its uses.

use std::sync::OnceLock;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// The free memory in bytes at the first call: of the system, or of the process's control group,
/// whichever is smaller. `None` if the system does not report it. It is read once, because freed
/// memory stays with the process for a while and seems used.
pub fn available() -> Option<u64> {
    static AVAILABLE: OnceLock<Option<u64>> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let system = System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
        let limit = system.cgroup_limits().map(|limits| limits.free_memory);
        // Some systems report 0 for unknown.
        [Some(system.available_memory()), limit].into_iter().flatten().filter(|bytes| *bytes > 0).min()
    })
}
