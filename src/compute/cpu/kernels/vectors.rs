//! The width of vectors, and the fixed order of reductions.

/// The lanes of every reduction.
pub(super) const LANES: usize = 16;

/// The vectors in use, in words.
pub fn vectors() -> &'static str {
    match arch() {
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V4(_) => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        pulp::Arch::V3(_) => "AVX2",
        #[cfg(target_arch = "aarch64")]
        pulp::Arch::Neon(_) => "NEON",
        _ => "no vectors",
    }
}

/// The widest vectors of the CPU.
#[cfg(not(test))]
#[inline(always)]
pub(super) fn arch() -> pulp::Arch {
    pulp::Arch::new()
}

#[cfg(test)]
thread_local! {
    /// Vectors in place of the CPU's widest, for tests.
    pub(super) static NARROWER: std::cell::Cell<Option<pulp::Arch>> = const { std::cell::Cell::new(None) };
}

/// The vectors chosen by a test, or the widest of the CPU.
#[cfg(test)]
pub(super) fn arch() -> pulp::Arch {
    NARROWER.get().unwrap_or_default()
}

/// The sum of a reduction's lanes, always in this order.
#[inline(always)]
pub(super) fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}
