//! Sizes of the caches of this processor, by which products are cut into blocks.

use std::sync::OnceLock;

/// The data caches of one core, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caches {
    /// The first level.
    pub first: usize,
    /// The second level.
    pub second: usize,
}

impl Caches {
    /// Those of this processor; where it does not say, what most have at least.
    pub fn get() -> Self {
        static CACHES: OnceLock<Caches> = OnceLock::new();
        *CACHES.get_or_init(|| {
            let least = Self { first: 32 << 10, second: 256 << 10 };
            let told = |level, least: usize| told(level).unwrap_or(0).max(least);
            Self { first: told(1, least.first), second: told(2, least.second) }
        })
    }
}

/// What the processor says of the data cache of a level: the deterministic cache parameters of
/// leaf 4 (Intel SDM, CPUID) or leaf 0x8000001D (AMD64 APM, volume 3), which have one layout.
#[cfg(target_arch = "x86_64")]
fn told(level: u32) -> Option<usize> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const INTEL: u32 = 4;
    const AMD: u32 = 0x8000_001D;
    for leaf in [INTEL, AMD] {
        // The highest leaf of a range is what its first one begins with.
        if __cpuid(leaf & 0x8000_0000).eax < leaf {
            continue;
        }
        for index in 0..16 {
            let found = __cpuid_count(leaf, index);
            let (kind, own) = (found.eax & 31, found.eax >> 5 & 7);
            const NONE: u32 = 0;
            const INSTRUCTIONS: u32 = 2;
            if kind == NONE {
                break;
            }
            if kind != INSTRUCTIONS && own == level {
                let [line, parts, ways] = [0, 12, 22].map(|bit| (found.ebx >> bit) as usize);
                let (line, parts, ways) = ((line & 0xFFF) + 1, (parts & 0x3FF) + 1, ways + 1);
                return Some(line * parts * ways * (found.ecx as usize + 1));
            }
        }
    }
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn told(_level: u32) -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_have_sizes_that_processors_have() {
        let Caches { first, second } = Caches::get();
        assert!((32 << 10..=512 << 10).contains(&first), "first level: {first} bytes");
        assert!((256 << 10..=64 << 20).contains(&second) && second >= first, "{second} bytes");
    }
}
