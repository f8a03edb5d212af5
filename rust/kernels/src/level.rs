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
    /// `avx2`, `avx512`; `neon`); the best one, too, where [`Level::asked`] says that it asks for
    /// another. Read once per process.
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
            Isa::Portable if cfg!(target_arch = "aarch64") => "neon",
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
        }
    }

    /// Runs loops over numbers, compiled for this instruction set: what the compiler makes vectors
    /// of in `work` becomes its vectors. Products and sums are not fused, nor is their order
    /// changed, so that results are the same bits at all levels.
    #[inline(always)]
    pub fn vectorize<R>(self, work: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
        fn avx512<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn avx2<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        match self.0 {
            // SAFETY: a Level only exists where the processor has its features.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { avx512(work) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { avx2(work) },
            Isa::Portable => work(),
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
/// the features. Functions of the number type alone are compiled here, for both of them, and crates
/// that use them call what is there; those of another type, too, are compiled where they are used.
macro_rules! dispatch {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<$T:ident>($level:ident: Level, $($arg:ident: $ty:ty),* $(,)?)
            $(-> $ret:ty)? = $body:ident $(,)?
    ) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take slices with their strides")]
        $vis fn $name<$T: $crate::simd::Real>(
            $level: $crate::level::Level, $($arg: $ty),*
        ) $(-> $ret)? {
            struct Compiled;
            impl $crate::simd::BothPrecisions for Compiled {
                type Of<$T: $crate::simd::Real> = fn($crate::level::Level, $($ty),*) $(-> $ret)?;
                fn f32(&self) -> &Self::Of<f32> {
                    type $T = f32;
                    $crate::level::by_level!(
                        run<$T>($level, $($arg: $ty),*) $(-> $ret)? = $body::<>
                    );
                    const { &(run as Self::Of<f32>) }
                }
                fn f64(&self) -> &Self::Of<f64> {
                    type $T = f64;
                    $crate::level::by_level!(
                        run<$T>($level, $($arg: $ty),*) $(-> $ret)? = $body::<>
                    );
                    const { &(run as Self::Of<f64>) }
                }
            }
            $T::pick(&Compiled)($level, $($arg),*)
        }
    };
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<$T:ident, $U:ident : $Bound:path>(
            $level:ident: Level, $($arg:ident: $ty:ty),* $(,)?
        )
            $(-> $ret:ty)? = $body:ident $(,)?
    ) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "kernels take slices with their strides")]
        $vis fn $name<$T: $crate::simd::Real, $U: $Bound>(
            $level: $crate::level::Level, $($arg: $ty),*
        ) $(-> $ret)? {
            $crate::level::by_level!(
                run<$T>[$T: $crate::simd::Real, $U: $Bound]($level, $($arg: $ty),*) $(-> $ret)?
                    = $body::<$U>
            );
            run::<$T, $U>($level, $($arg),*)
        }
    };
}
pub(crate) use dispatch;

/// Defines the function of [`dispatch`], whose number type is in scope: one with the features of
/// every level, and the one that calls them.
macro_rules! by_level {
    (
        $run:ident<$T:ident>$([$G:ident: $Real:path, $U:ident: $Bound:path])?(
            $level:ident, $($arg:ident: $ty:ty),*
        )
            $(-> $ret:ty)? = $body:ident::<$($V:ident)?>
    ) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma,popcnt,bmi1,bmi2")]
        #[allow(clippy::too_many_arguments)]
        fn avx512$(<$G: $Real, $U: $Bound>)?($($arg: $ty),*) $(-> $ret)? {
            $body::<<$T as $crate::simd::Real>::Avx512 $(, $V)?>($($arg),*)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,popcnt,bmi1,bmi2")]
        #[allow(clippy::too_many_arguments)]
        fn avx2$(<$G: $Real, $U: $Bound>)?($($arg: $ty),*) $(-> $ret)? {
            $body::<<$T as $crate::simd::Real>::Avx2 $(, $V)?>($($arg),*)
        }
        #[allow(clippy::too_many_arguments)]
        fn $run$(<$G: $Real, $U: $Bound>)?(
            $level: $crate::level::Level, $($arg: $ty),*
        ) $(-> $ret)? {
            match $level.0 {
                // SAFETY: a Level only exists where the processor has its features.
                #[cfg(target_arch = "x86_64")]
                $crate::level::Isa::Avx512 => unsafe { avx512$(::<$G, $U>)?($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::level::Isa::Avx2 => unsafe { avx2$(::<$G, $U>)?($($arg),*) },
                $crate::level::Isa::Portable => {
                    $body::<<$T as $crate::simd::Real>::Portable $(, $V)?>($($arg),*)
                }
            }
        }
    };
}
pub(crate) use by_level;

/// Calls a function of the number type with these arguments: `$single` for `f32` on x86-64, and
/// otherwise `$plain`, which is there for both types.
macro_rules! single_or_plain {
    (
        $T:ident, ($($arg:ident: $ty:ty),* $(,)?), single = $single:path, plain = $plain:ident $(,)?
    ) => {{
        struct Kernels;
        impl $crate::simd::BothPrecisions for Kernels {
            type Of<$T: $crate::simd::Real> = fn($($ty),*);
            fn f32(&self) -> &Self::Of<f32> {
                #[cfg(target_arch = "x86_64")]
                const { &($single as Self::Of<f32>) }
                #[cfg(not(target_arch = "x86_64"))]
                const { &($plain as Self::Of<f32>) }
            }
            fn f64(&self) -> &Self::Of<f64> {
                const { &($plain as Self::Of<f64>) }
            }
        }
        $T::pick(&Kernels)($($arg),*)
    }};
}
pub(crate) use single_or_plain;
