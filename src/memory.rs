//! The memory that this process may take. Knows nothing of who needs it.

use std::sync::OnceLock;

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// The bytes that were free when this was first asked, or that the process's control group leaves it, whichever is less; `None` where the system does not
/// say. PromptContent once, since memory that was freed here is kept for a while and seems taken.
pub fn available() -> Option<u64> {
    static AVAILABLE: OnceLock<Option<u64>> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        let system = System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
        let limit = system.cgroup_limits().map(|limits| limits.free_memory);
        // A system that does not say says 0.
        [Some(system.available_memory()), limit].into_iter().flatten().filter(|bytes| *bytes > 0).min()
    })
}
