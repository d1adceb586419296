//! Arithmetic with subnormal numbers as zeros, as in a matrix unit. Knows nothing of products.

/// Does `work` with subnormal results and operands taken as zeros of their sign.
///
/// `work` must call a function without inlining: compilers know nothing of the mode, and could move
/// arithmetic out of it.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
pub(super) fn flushing<R>(work: impl FnOnce() -> R) -> R {
    use std::arch::asm;

    /// Both flags, round to nearest even, no traps.
    const FLUSHING: u32 = 0x9fc0;

    struct Mode(u32);
    impl Drop for Mode {
        fn drop(&mut self) {
            // SAFETY: the control register as it was.
            unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const self.0, options(nostack)) };
        }
    }
    let mut mode = 0_u32;
    let new = FLUSHING;
    // SAFETY: reads and writes the control register only; `Mode` restores it.
    unsafe { asm!("stmxcsr [{}]", "ldmxcsr [{}]", in(reg) &raw mut mode, in(reg) &raw const new, options(nostack)) };
    let _before = Mode(mode);
    work()
}

/// Whether a result was flushed since the last call on a CPU with flushing before rounding. Others
/// round first, and the result may be another.
#[cfg(not(target_arch = "aarch64"))]
#[inline(always)]
pub(super) fn flushed() -> bool {
    false
}

/// See the other one.
#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code)]
pub(super) fn flushing<R>(work: impl FnOnce() -> R) -> R {
    use std::arch::asm;

    /// Flush to zero; the rest is 0: round to nearest even, no traps.
    const FLUSHING: u64 = 1 << 24;

    struct Mode(u64);
    impl Drop for Mode {
        fn drop(&mut self) {
            // SAFETY: the control register as it was.
            unsafe { asm!("msr fpcr, {}", in(reg) self.0, options(nostack)) };
        }
    }
    let mode: u64;
    // SAFETY: reads and writes the control and status registers only; `Mode` restores the first.
    unsafe { asm!("mrs {}, fpcr", "msr fpsr, xzr", "msr fpcr, {}", out(reg) mode, in(reg) FLUSHING, options(nostack)) };
    let _before = Mode(mode);
    work()
}

/// See the other one.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
#[allow(unsafe_code)]
pub(super) fn flushed() -> bool {
    use std::arch::asm;

    /// The status bit of underflow.
    const UNDERFLOW: u64 = 1 << 3;

    let status: u64;
    // SAFETY: reads and clears the status register.
    unsafe { asm!("mrs {}, fpsr", "msr fpsr, xzr", out(reg) status, options(nostack)) };
    status & UNDERFLOW != 0
}

/// Elsewhere nothing needs it.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) fn flushing<R>(work: impl FnOnce() -> R) -> R {
    work()
}
