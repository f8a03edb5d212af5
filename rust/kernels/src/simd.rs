//! Vectors of f32 and f64 behind one trait, so that a kernel is written once for all instruction
//! sets.

use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};
use std::sync::Arc;

use crate::Level;
use crate::fft::{Direction, Plan, plan};
use crate::logarithm::{finite_ln_f32, finite_ln_f64};

/// A pair of things of which one is made for `f32`, and the other for `f64`: [`Real::pick`] takes
/// one.
pub trait BothPrecisions {
    /// The one for `T`.
    type Of<T: Real>: ?Sized;
    /// The one for `f32`.
    fn f32(&self) -> &Self::Of<f32>;
    /// The one for `f64`.
    fn f64(&self) -> &Self::Of<f64>;
}

/// A floating-point type of states and parameters: `f32` or `f64`.
pub trait Real:
    Copy
    + Send
    + Sync
    + Debug
    + Display
    + Default
    + PartialOrd
    + PartialEq
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
    + 'static
{
    /// The vector of the portable instance of a kernel.
    type Portable: Vector<Scalar = Self>;
    /// The vector of AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    type Avx2: Vector<Scalar = Self>;
    /// The vector of AVX-512.
    #[cfg(target_arch = "x86_64")]
    type Avx512: Vector<Scalar = Self>;

    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// The distance from one to the next larger number.
    const EPSILON: Self;
    /// The NumPy name of the type.
    const NAME: &'static str;

    /// Rounds an f64.
    fn from_f64(x: f64) -> Self;
    /// Rounds an integer.
    fn from_u32(x: u32) -> Self;
    /// Rounds an integer.
    fn from_i32(x: i32) -> Self;
    /// Widens to f64.
    fn to_f64(self) -> f64;
    /// Cuts to an integer: the nearest one where there is none, and zero for NaN.
    fn to_u32(self) -> u32;
    /// The one of a pair that is made for this type.
    fn pick<P: BothPrecisions + ?Sized>(pair: &P) -> &P::Of<Self>;
    /// The plan of a discrete Fourier transform.
    fn plan_transform(level: Level, len: usize, direction: Direction) -> Arc<dyn Plan<Self>>;
    /// Absolute value.
    fn abs(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The natural logarithm of a number that is not negative; finite at zero.
    fn finite_ln(self) -> Self;
    /// Whether the number is neither NaN nor infinite.
    fn is_finite(self) -> bool;
    /// The nearest finite number whose significand has the eight bits that one of bfloat16 has;
    /// ties go to the even one. Of an `f32` that is the nearest finite bfloat16. What is not finite
    /// stays so.
    fn bfloat16(self) -> Self;
    /// The larger of the magnitudes of `self` and `other`; NaN if either is NaN.
    fn max_magnitude(self, other: Self) -> Self;
    /// The number, or the end of the interval that it is beyond; NaN stays NaN.
    #[inline(always)]
    fn within(self, lower: Self, upper: Self) -> Self {
        let raised = if self < lower { lower } else { self };
        if raised > upper { upper } else { raised }
    }
}

macro_rules! real {
    ($T:ident, $name:literal, $finite_ln:path, $portable:ty, $avx2:ty, $avx512:ty) => {
        impl Real for $T {
            type Portable = $portable;
            #[cfg(target_arch = "x86_64")]
            type Avx2 = $avx2;
            #[cfg(target_arch = "x86_64")]
            type Avx512 = $avx512;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const EPSILON: Self = $T::EPSILON;
            const NAME: &'static str = $name;
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $T
            }
            #[inline(always)]
            fn from_u32(x: u32) -> Self {
                x as $T
            }
            #[inline(always)]
            fn from_i32(x: i32) -> Self {
                x as $T
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn pick<P: BothPrecisions + ?Sized>(pair: &P) -> &P::Of<Self> {
                pair.$T()
            }
            fn plan_transform(
                level: Level,
                len: usize,
                direction: Direction,
            ) -> Arc<dyn Plan<Self>> {
                plan(level, len, direction)
            }
            #[inline(always)]
            fn to_u32(self) -> u32 {
                self as u32
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn finite_ln(self) -> Self {
                $finite_ln(self)
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                self.is_finite()
            }
            #[inline(always)]
            fn bfloat16(self) -> Self {
                const CUT: u32 = $T::MANTISSA_DIGITS - 8;
                let most = $T::from_bits($T::MAX.to_bits() >> CUT << CUT);
                let bits = self.to_bits();
                // Half a unit of what is kept, or, where that is even, just less: a carry goes on
                // into the exponent, as it should.
                let raised = bits.wrapping_add((1 << (CUT - 1)) - 1 + (bits >> CUT & 1));
                let kept = $T::from_bits(raised >> CUT << CUT);
                let rounded = kept.within(-most, most);
                if self.is_nan() {
                    $T::NAN
                } else if self.is_finite() {
                    rounded
                } else {
                    self
                }
            }
            #[inline(always)]
            fn max_magnitude(self, other: Self) -> Self {
                // The bits of non-negative floats are ordered like the numbers, with NaN above
                // infinity.
                $T::from_bits(self.abs().to_bits().max(other.abs().to_bits()))
            }
        }
    };
}
/// The lanes of the vector that every processor of the architecture has: on AArch64, whose
/// compilers make NEON of it, those of one of its 32 registers; elsewhere those of several.
const LANES: [usize; 2] = if cfg!(target_arch = "aarch64") { [4, 2] } else { [8, 4] };

real!(f32, "float32", finite_ln_f32, Lanes<f32, { LANES[0] }>, x86::F32x8, x86::F32x16);
real!(f64, "float64", finite_ln_f64, Lanes<f64, { LANES[1] }>, x86::F64x4, x86::F64x8);

/// Elements past the end of what [`Vector::compress`] and [`Vector::select`] write that they may
/// overwrite: one vector.
pub const SLACK: usize = 16;

/// A vector of [`Real`] numbers.
///
/// # Safety
/// All methods need the instruction set of the type; pointers must be valid for the lanes that are
/// touched. Pointers need no alignment.
#[allow(clippy::missing_safety_doc, reason = "stated once, for the trait")]
pub trait Vector: Copy {
    /// The type of a lane.
    type Scalar: Real;
    /// How many lanes there are.
    const LANES: usize;
    /// How many vectors fit in registers.
    const REGISTERS: usize;
    /// `x` in all lanes.
    unsafe fn splat(x: Self::Scalar) -> Self;
    /// Reads all lanes.
    unsafe fn load(p: *const Self::Scalar) -> Self;
    /// Reads the first `n < LANES` lanes; the others are zero.
    unsafe fn load_first(p: *const Self::Scalar, n: usize) -> Self;
    /// Writes all lanes.
    unsafe fn store(self, p: *mut Self::Scalar);
    /// Writes the first `n < LANES` lanes.
    unsafe fn store_first(self, p: *mut Self::Scalar, n: usize);
    /// Lane-wise sum.
    unsafe fn add(self, b: Self) -> Self;
    /// Lane-wise difference.
    unsafe fn sub(self, b: Self) -> Self;
    /// Lane-wise product.
    unsafe fn mul(self, b: Self) -> Self;
    /// Lane-wise quotient.
    unsafe fn div(self, b: Self) -> Self;
    /// `self * b + c`, fused where the instruction set can.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// The smaller lane; `b` where either is NaN.
    unsafe fn min(self, b: Self) -> Self;
    /// The larger lane; `b` where either is NaN.
    unsafe fn max(self, b: Self) -> Self;
    /// The larger of `self` (no lane negative) and `|b|`; NaN where either is NaN.
    unsafe fn max_magnitude(self, b: Self) -> Self;
    /// Sum of the lanes, in an order fixed by the type.
    unsafe fn sum(self) -> Self::Scalar;
    /// The largest lane; NaN if any is NaN. No lane may be negative.
    unsafe fn largest(self) -> Self::Scalar;
    /// Whether a lane is not zero; NaN counts as such.
    unsafe fn any(self) -> bool;
    /// Writes the non-zero lanes at `p` to `value` and `first` plus their positions to `index`;
    /// returns how many there are. NaN counts as non-zero. A whole vector of each may be
    /// overwritten.
    #[inline(always)]
    unsafe fn compress(
        p: *const Self::Scalar,
        first: u32,
        index: *mut u32,
        value: *mut Self::Scalar,
    ) -> usize {
        let mut n = 0;
        for i in 0..Self::LANES {
            // SAFETY: the caller vouches for LANES elements everywhere, and n <= i. Branch-free,
            // for zeros are unpredictable.
            unsafe {
                let v = *p.add(i);
                *index.add(n) = first + i as u32;
                *value.add(n) = v;
                n += usize::from(v != Real::ZERO);
            }
        }
        n
    }
    /// One where a lane is at least that of `b`, zero where it is not or either is NaN.
    unsafe fn step(self, b: Self) -> Self;
    /// Writes the lanes of `self` at which `keep` is not zero to `p`, in order. A whole vector may
    /// be overwritten.
    #[inline(always)]
    unsafe fn select(self, keep: Self, p: *mut Self::Scalar) {
        let (mut values, mut kept) = ([Self::Scalar::ZERO; SLACK], [Self::Scalar::ZERO; SLACK]);
        const { assert!(Self::LANES <= SLACK) };
        // SAFETY: both arrays hold a vector, and n <= i. Branch-free, for what is kept is
        // unpredictable.
        unsafe {
            self.store(values.as_mut_ptr());
            keep.store(kept.as_mut_ptr());
            let mut n = 0;
            for i in 0..Self::LANES {
                *p.add(n) = values[i];
                n += usize::from(kept[i] != Real::ZERO);
            }
        }
    }
    /// Numbers from `p` on, in order, for the lanes at which `wanted` is one (others are zero, and
    /// `wanted` is zero there); and how many these are. A whole vector may be read.
    #[inline(always)]
    unsafe fn expand(p: *const Self::Scalar, wanted: Self) -> (Self, usize) {
        let mut lanes = [Self::Scalar::ZERO; SLACK];
        // SAFETY: the array holds a vector, and n <= i.
        unsafe {
            wanted.store(lanes.as_mut_ptr());
            let mut n = 0;
            // Branch-free, for what is wanted is unpredictable.
            for lane in &mut lanes[..Self::LANES] {
                let wanted = *lane;
                *lane = *p.add(n) * wanted;
                n += usize::from(wanted != Real::ZERO);
            }
            (Self::load(lanes.as_ptr()), n)
        }
    }
    /// The lanes of both in turn, one of `self` first: the first half, and the second.
    unsafe fn interleave(self, b: Self) -> (Self, Self);
    /// Whether a train has a one in common with any of LANES others, the highest bit left out.
    #[inline(always)]
    unsafe fn meets(train: u32, others: *const u32) -> bool {
        let mut common = 0;
        for i in 0..Self::LANES {
            // SAFETY: the caller vouches for LANES elements.
            common |= train & unsafe { *others.add(i) };
        }
        common << 1 != 0
    }
    /// Counts the ones that a train has in common with each of LANES others, all but the highest
    /// bit; and which of these bits differ: one where they do, otherwise zero.
    #[inline(always)]
    unsafe fn coincide(train: u32, others: *const u32) -> (Self, Self) {
        let (mut number, mut differ) = ([Self::Scalar::ZERO; SLACK], [Self::Scalar::ZERO; SLACK]);
        // SAFETY: the caller vouches for LANES elements; both arrays hold a vector.
        unsafe {
            for i in 0..Self::LANES {
                let other = *others.add(i);
                number[i] = Real::from_u32((train & other & (u32::MAX >> 1)).count_ones());
                differ[i] = Real::from_u32((train ^ other) >> 31);
            }
            (Self::load(number.as_ptr()), Self::load(differ.as_ptr()))
        }
    }
    /// The same for a train with a single one.
    #[inline(always)]
    unsafe fn coincide_once(train: u32, others: *const u32) -> (Self, Self) {
        // SAFETY: as above.
        unsafe { Self::coincide(train, others) }
    }
    /// Cuts the lanes, none of which is negative or NaN, to integers, and writes these: the largest
    /// one for what is beyond.
    #[inline(always)]
    unsafe fn cut(self, p: *mut u32) {
        let mut lanes = [Self::Scalar::ZERO; SLACK];
        // SAFETY: the array holds a vector; the caller vouches for LANES elements.
        unsafe {
            self.store(lanes.as_mut_ptr());
            for (i, lane) in lanes[..Self::LANES].iter().enumerate() {
                p.add(i).write(lane.to_u32());
            }
        }
    }
    /// The nearest integer.
    unsafe fn round(self) -> Self;
    /// Square roots.
    unsafe fn sqrt(self) -> Self;
    /// `2^n` for integer lanes within the exponent range of normal numbers.
    unsafe fn exp2_integer(self) -> Self;
}

/// An array as a vector: the portable instance, which compilers turn into whatever the architecture
/// has.
#[derive(Debug, Clone, Copy)]
pub struct Lanes<T, const N: usize>([T; N]);

/// An array of what `f` makes of every place, written over as many zeros: a plain loop, which is
/// always compiled into the kernel, with its instructions. `std::array::from_fn` may be called
/// instead, with vectors in memory: measured where products meet AVX2. In sweeps and sparse
/// products, where it is not, it is the faster of the two.
#[inline(always)]
pub(crate) fn each<T: Copy, const N: usize>(zero: T, mut f: impl FnMut(usize) -> T) -> [T; N] {
    let mut all = [zero; N];
    let mut i = 0;
    while i < N {
        all[i] = f(i);
        i += 1;
    }
    all
}

macro_rules! portable {
    ($T:ident, $N:expr, $bias:literal, $mantissa:literal, $Bits:ident, $Int:ident) => {
        impl Vector for Lanes<$T, { $N }> {
            type Scalar = $T;
            const LANES: usize = $N;
            const REGISTERS: usize = if cfg!(target_arch = "aarch64") { 32 } else { 8 };
            #[inline(always)]
            unsafe fn splat(x: $T) -> Self {
                Self([x; $N])
            }
            #[inline(always)]
            unsafe fn load(p: *const $T) -> Self {
                // SAFETY: the caller vouches for all lanes; arrays of floats have no padding.
                Self(unsafe { p.cast::<[$T; $N]>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn load_first(p: *const $T, n: usize) -> Self {
                // SAFETY: the caller vouches for `n` lanes.
                Self(each(0.0, |i| if i < n { unsafe { p.add(i).read() } } else { 0.0 }))
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $T) {
                // SAFETY: the caller vouches for all lanes.
                unsafe { p.cast::<[$T; $N]>().write_unaligned(self.0) }
            }
            #[inline(always)]
            unsafe fn store_first(self, p: *mut $T, n: usize) {
                for i in 0..n {
                    // SAFETY: the caller vouches for `n` lanes.
                    unsafe { p.add(i).write(self.0[i]) }
                }
            }
            #[inline(always)]
            unsafe fn add(self, b: Self) -> Self {
                Self(each(0.0, |i| self.0[i] + b.0[i]))
            }
            #[inline(always)]
            unsafe fn sub(self, b: Self) -> Self {
                Self(each(0.0, |i| self.0[i] - b.0[i]))
            }
            #[inline(always)]
            unsafe fn mul(self, b: Self) -> Self {
                Self(each(0.0, |i| self.0[i] * b.0[i]))
            }
            #[inline(always)]
            unsafe fn div(self, b: Self) -> Self {
                Self(each(0.0, |i| self.0[i] / b.0[i]))
            }
            #[inline(always)]
            unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                // Without hardware FMA the fused form is a library call per lane.
                if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
                    Self(each(0.0, |i| self.0[i].mul_add(b.0[i], c.0[i])))
                } else {
                    Self(each(0.0, |i| self.0[i] * b.0[i] + c.0[i]))
                }
            }
            #[inline(always)]
            unsafe fn min(self, b: Self) -> Self {
                Self(each(0.0, |i| if self.0[i] < b.0[i] { self.0[i] } else { b.0[i] }))
            }
            #[inline(always)]
            unsafe fn max(self, b: Self) -> Self {
                Self(each(0.0, |i| if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] }))
            }
            #[inline(always)]
            unsafe fn max_magnitude(self, b: Self) -> Self {
                Self(each(0.0, |i| Real::max_magnitude(self.0[i], b.0[i])))
            }
            #[inline(always)]
            unsafe fn sum(self) -> $T {
                let mut lanes = self.0;
                let mut width = $N;
                while width > 1 {
                    width /= 2;
                    for i in 0..width {
                        lanes[i] += lanes[i + width];
                    }
                }
                lanes[0]
            }
            #[inline(always)]
            unsafe fn largest(self) -> $T {
                self.0.iter().fold(0.0, |a, &b| Real::max_magnitude(a, b))
            }
            #[inline(always)]
            unsafe fn any(self) -> bool {
                self.0.iter().fold(false, |any, &lane| any | (lane != 0.0))
            }
            #[inline(always)]
            unsafe fn step(self, b: Self) -> Self {
                Self(each(0.0, |i| if self.0[i] >= b.0[i] { 1.0 } else { 0.0 }))
            }
            #[inline(always)]
            unsafe fn interleave(self, b: Self) -> (Self, Self) {
                let lane = |i: usize| if i % 2 == 0 { self.0[i / 2] } else { b.0[i / 2] };
                (Self(each(0.0, lane)), Self(each(0.0, |i| lane(i + $N))))
            }
            #[inline(always)]
            unsafe fn round(self) -> Self {
                Self(each(0.0, |i| self.0[i].round_ties_even()))
            }
            #[inline(always)]
            unsafe fn sqrt(self) -> Self {
                Self(self.0.map($T::sqrt))
            }
            #[inline(always)]
            unsafe fn exp2_integer(self) -> Self {
                Self(each(0.0, |i| {
                    $T::from_bits(((self.0[i] as $Int + $bias) << $mantissa) as $Bits)
                }))
            }
        }
    };
}
portable!(f32, LANES[0], 127, 23, u32, i32);
portable!(f64, LANES[1], 1023, 52, u64, i64);

#[cfg(target_arch = "x86_64")]
#[path = "simd_x86.rs"]
pub mod x86;
