//! Which instruction set the kernels use.

use std::sync::OnceLock;

/// An instruction set that the kernels are compiled for and that this processor has: there is no
/// way to make a value that it lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(pub(crate) Isa);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Isa {
    /// What every processor of the architecture has (SSE2 on x86-64, NEON on AArch64).
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best level of this processor, or the lower one that `PNNCORE_SIMD` asks for (`portable`,
    /// `avx2`, `avx512`); the best one, too, where [`Level::asked`] says that it asks for another.
    /// Read once per process.
    pub fn get() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| Self::asked().unwrap_or(Self(detect())))
    }

    /// The level that `PNNCORE_SIMD` asks for, the best one where it is not set.
    ///
    /// # Errors
    /// What is wrong with it: it names none, or one that this processor lacks.
    pub fn asked() -> Result<Self, String> {
        let asked = std::env::var("PNNCORE_SIMD").unwrap_or_default();
        if asked.is_empty() {
            return Ok(Self(detect()));
        }
        Self::available().find(|level| level.name() == asked).ok_or_else(|| {
            let known: Vec<&str> = Self::available().map(Self::name).collect();
            format!("PNNCORE_SIMD must be one of {} here, got {asked:?}", known.join(", "))
        })
    }

    /// All levels that this processor has, lowest first.
    pub fn available() -> impl Iterator<Item = Self> {
        let best = detect();
        let all = [
            Isa::Portable,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512,
        ];
        all.into_iter().filter(move |&isa| isa <= best).map(Self)
    }

    /// The name, as `PNNCORE_SIMD` takes it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
        }
    }
}

fn detect() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let narrow = has!("avx2") && has!("fma") && has!("popcnt") && has!("bmi1") && has!("bmi2");
        if narrow && has!("avx512f") && has!("avx512dq") && has!("avx512vl") && has!("avx512bw") {
            return Isa::Avx512;
        }
        if narrow {
            return Isa::Avx2;
        }
    }
    Isa::Portable
}

/// Defines a safe function that runs `$body::<V, ..>` with the vector type `V` of a [`Level`].
///
/// The body must be `#[inline(always)]`: it is compiled once per level, inside a function that has
/// the features.
macro_rules! dispatch {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<$T:ident $(, $U:ident : $Bound:path)?>(
            $level:ident: Level, $($arg:ident: $ty:ty),* $(,)?
        )
            $(-> $ret:ty)? = $body:ident $(,)?
    ) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take slices with their strides")]
        $vis fn $name<$T: $crate::simd::Real $(, $U: $Bound)?>(
            $level: $crate::level::Level, $($arg: $ty),*
        ) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(
                enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,popcnt,bmi1,bmi2"
            )]
            #[allow(clippy::too_many_arguments)]
            fn avx512<$T: $crate::simd::Real $(, $U: $Bound)?>($($arg: $ty),*) $(-> $ret)? {
                $body::<<$T as $crate::simd::Real>::Avx512 $(, $U)?>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,popcnt,bmi1,bmi2")]
            #[allow(clippy::too_many_arguments)]
            fn avx2<$T: $crate::simd::Real $(, $U: $Bound)?>($($arg: $ty),*) $(-> $ret)? {
                $body::<<$T as $crate::simd::Real>::Avx2 $(, $U)?>($($arg),*)
            }
            match $level.0 {
                // SAFETY: a Level only exists where the processor has its features.
                #[cfg(target_arch = "x86_64")]
                $crate::level::Isa::Avx512 => unsafe { avx512::<$T $(, $U)?>($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::level::Isa::Avx2 => unsafe { avx2::<$T $(, $U)?>($($arg),*) },
                $crate::level::Isa::Portable => {
                    $body::<<$T as $crate::simd::Real>::Portable $(, $U)?>($($arg),*)
                }
            }
        }
    };
}
pub(crate) use dispatch;
