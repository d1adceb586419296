//! The CPU's units for products in bf16. Knows nothing of matrices.

use pulp::Arch;

/// A unit.
#[derive(Clone, Copy, Debug)]
pub(in crate::compute::cpu::kernels) enum Unit {
    /// AMX.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// Vectors.
    Vectors(Arch),
    /// Plain f32.
    Portable,
    /// A matrix unit in software.
    #[cfg(test)]
    Software,
}

impl Unit {
    /// Those of this machine, best first.
    pub(super) fn usable() -> Vec<Self> {
        let mut units = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if super::amx::Amx::usable() {
                units.push(Self::Amx);
            }
            units.extend(pulp::x86::V4::try_new().map(|simd| Self::Vectors(Arch::V4(simd))));
            units.extend(pulp::x86::V3::try_new().map(|simd| Self::Vectors(Arch::V3(simd))));
        }
        #[cfg(target_arch = "aarch64")]
        if let arch @ Arch::Neon(_) = Arch::new() {
            units.push(Self::Vectors(arch));
        }
        units.push(Self::Portable);
        units
    }

    /// Its name in the environment.
    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => "amx",
            #[cfg(target_arch = "x86_64")]
            Self::Vectors(Arch::V4(_)) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Vectors(Arch::V3(_)) => "avx2",
            #[cfg(target_arch = "aarch64")]
            Self::Vectors(Arch::Neon(_)) => "neon",
            Self::Vectors(_) => "scalar",
            Self::Portable => "portable",
            #[cfg(test)]
            Self::Software => "software",
        }
    }
}
