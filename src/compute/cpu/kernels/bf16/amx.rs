//! Intel's matrix unit, AMX. Knows nothing of factors.
//!
//! Inline assembly: Rust's functions for these instructions are unstable. Compilers never use the
//! tiles, so they keep their numbers from one instruction to the next.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};

use super::blocks::PAIRS;
use super::left::{TILE, TileBlock};
use super::pairs::Pairs;
use super::tiles::TileUnit;

/// Bytes of a tile's row.
const ROW_BYTES: usize = 64;

/// The tiles of this thread, configured until this is dropped.
pub(super) struct Amx(());

/// `ldtilecfg`'s memory.
#[repr(C, align(64))]
struct Configuration([u8; 64]);

/// All tiles are of 16 rows of 64 bytes.
static WHOLE_TILES: Configuration = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = ROW_BYTES as u8;
        bytes[48 + tile] = TILE as u8;
        tile += 1;
    }
    Configuration(bytes)
};

impl Amx {
    /// Whether the CPU has the unit and the operating system lets this process use it. Asks the
    /// operating system for it.
    pub(super) fn usable() -> bool {
        has_instructions() && system_saves_tiles() && permitted()
    }

    /// Configures the tiles of this thread.
    ///
    /// # Safety
    /// The unit is usable.
    #[allow(unsafe_code)]
    pub(super) unsafe fn configured() -> Self {
        // SAFETY: a valid configuration, on a CPU that has the instruction.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE_TILES, options(nostack, preserves_flags)) };
        Self(())
    }
}

impl Drop for Amx {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the CPU has the instruction.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}

/// AMX-TILE and AMX-BF16.
fn has_instructions() -> bool {
    const TILE_AND_BF16: u32 = 1 << 24 | 1 << 22;
    let (highest, features) = (__cpuid(0).eax, __cpuid_count(7, 0).edx);
    highest >= 7 && features & TILE_AND_BF16 == TILE_AND_BF16
}

/// Whether the operating system saves the tiles of threads.
#[allow(unsafe_code)]
fn system_saves_tiles() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILES: u32 = 3 << 17;
    if __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let saved: u32;
    // SAFETY: reads a register; the flag says it is there.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") saved, out("edx") _, options(nostack, nomem, preserves_flags)) };
    saved & TILES == TILES
}

/// Asks Linux for the tiles' memory in this process.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let result: i64;
    // SAFETY: a system call that touches no memory of ours.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Nobody knows how to ask.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

#[allow(unsafe_code)]
impl TileUnit for Amx {
    #[inline(always)]
    fn zero<const TO: usize>(&mut self) {
        // SAFETY: tiles are configured.
        unsafe { asm!("tilezero tmm{to}", to = const TO, options(nostack, nomem, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn load<const TO: usize>(&mut self, from: *const f32, stride_bytes: usize) {
        // SAFETY: tiles are configured; the rows can be read.
        unsafe {
            asm!(
                "tileloadd tmm{to}, [{from} + {stride}*1]",
                to = const TO, from = in(reg) from, stride = in(reg) stride_bytes,
                options(nostack, readonly, preserves_flags),
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const FROM: usize>(&mut self, to: *mut f32, stride_bytes: usize) {
        // SAFETY: tiles are configured; the rows can be written.
        unsafe {
            asm!(
                "tilestored [{to} + {stride}*1], tmm{from}",
                from = const FROM, to = in(reg) to, stride = in(reg) stride_bytes,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    fn left<const TO: usize>(&mut self, block: &TileBlock) {
        // SAFETY: a block has all rows of a tile.
        unsafe { self.load::<TO>(block.0.as_ptr().cast(), ROW_BYTES) };
    }

    #[inline(always)]
    fn right<const TO: usize>(&mut self, lines: &[Pairs; PAIRS], half: usize) {
        debug_assert!(half < 2);
        // SAFETY: a line is two rows of tiles wide.
        unsafe { self.load::<TO>(lines.as_ptr().cast::<f32>().wrapping_add(half * TILE), size_of::<Pairs>()) };
    }

    #[inline(always)]
    fn multiply<const TO: usize, const LEFT: usize, const RIGHT: usize>(&mut self) {
        // SAFETY: tiles are configured.
        unsafe {
            asm!(
                "tdpbf16ps tmm{to}, tmm{left}, tmm{right}",
                to = const TO, left = const LEFT, right = const RIGHT,
                options(nostack, nomem, preserves_flags),
            );
        }
    }
}
