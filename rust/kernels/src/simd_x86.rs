//! The vectors of AVX2 with FMA and of AVX-512.

use super::Vector;
use std::arch::x86_64::*;

/// Defines one vector type by the intrinsics of its operations.
macro_rules! vector {
    (
        $(#[$meta:meta])* $V:ident($raw:ty) of $T:ident x $N:literal in $registers:literal;
        splat $splat:ident; load $load:ident; store $store:ident;
        load_first |$lp:ident, $ln:ident| $load_first:expr;
        store_first |$sv:ident, $sp:ident, $sn:ident| $store_first:expr;
        add $add:ident; sub $sub:ident; mul $mul:ident; div $div:ident;
        fma $fma:ident; min $min:ident; max $max:ident;
        max_magnitude |$ma:ident, $mb:ident| $max_magnitude:expr;
        sum |$s:ident| $sum:expr;
        largest |$l:ident| $largest:expr;
        any |$nv:ident| $any:expr;
        round |$r:ident| $round:expr;
        sqrt $sqrt:ident;
        exp2_integer |$e:ident| $exp2:expr;
        step |$ta:ident, $tb:ident| $step:expr;
        interleave |$ia:ident, $ib:ident| $interleave:expr;
        $(select |$kv:ident, $kk:ident, $kp:ident| $select:expr;)?
        $(expand |$ep:ident, $ew:ident| $expand:expr;)?
        $(cut |$uv:ident, $up:ident| $cut:expr;)?
        $(meets |$mt:ident, $mo:ident| $meets:expr;)?
        $(coincide |$dt:ident, $do:ident| $coincide:expr;)?
        $(coincide_once |$ot:ident, $oo:ident| $coincide_once:expr;)?
        $(compress |$cp:ident, $cf:ident, $ci:ident, $cv:ident| $compress:expr;)?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        pub struct $V($raw);

        // SAFETY of every block below: the trait's contract (the instruction set is there, pointers
        // are valid).
        #[allow(clippy::undocumented_unsafe_blocks, reason = "the trait's contract, for all of \
                                                              them")]
        impl Vector for $V {
            type Scalar = $T;
            const LANES: usize = $N;
            const REGISTERS: usize = $registers;
            #[inline(always)]
            unsafe fn splat(x: $T) -> Self {
                unsafe { Self($splat(x)) }
            }
            #[inline(always)]
            unsafe fn load(p: *const $T) -> Self {
                unsafe { Self($load(p)) }
            }
            #[inline(always)]
            unsafe fn load_first($lp: *const $T, $ln: usize) -> Self {
                unsafe { Self($load_first) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $T) {
                unsafe { $store(p, self.0) }
            }
            #[inline(always)]
            unsafe fn store_first(self, $sp: *mut $T, $sn: usize) {
                let $sv = self.0;
                unsafe { $store_first }
            }
            #[inline(always)]
            unsafe fn add(self, b: Self) -> Self {
                unsafe { Self($add(self.0, b.0)) }
            }
            #[inline(always)]
            unsafe fn sub(self, b: Self) -> Self {
                unsafe { Self($sub(self.0, b.0)) }
            }
            #[inline(always)]
            unsafe fn mul(self, b: Self) -> Self {
                unsafe { Self($mul(self.0, b.0)) }
            }
            #[inline(always)]
            unsafe fn div(self, b: Self) -> Self {
                unsafe { Self($div(self.0, b.0)) }
            }
            #[inline(always)]
            unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                unsafe { Self($fma(self.0, b.0, c.0)) }
            }
            #[inline(always)]
            unsafe fn min(self, b: Self) -> Self {
                unsafe { Self($min(self.0, b.0)) }
            }
            #[inline(always)]
            unsafe fn max(self, b: Self) -> Self {
                unsafe { Self($max(self.0, b.0)) }
            }
            #[inline(always)]
            unsafe fn max_magnitude(self, b: Self) -> Self {
                let ($ma, $mb) = (self.0, b.0);
                unsafe { Self($max_magnitude) }
            }
            #[inline(always)]
            unsafe fn sum(self) -> $T {
                let $s = self.0;
                unsafe { $sum }
            }
            #[inline(always)]
            unsafe fn largest(self) -> $T {
                let $l = self.0;
                // The bits of non-negative floats are ordered like the numbers, with NaN above
                // infinity.
                unsafe { <$T>::from_bits($largest) }
            }
            #[inline(always)]
            unsafe fn round(self) -> Self {
                let $r = self.0;
                unsafe { Self($round) }
            }
            #[inline(always)]
            unsafe fn sqrt(self) -> Self {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { Self($sqrt(self.0)) }
            }
            #[inline(always)]
            unsafe fn exp2_integer(self) -> Self {
                let $e = self.0;
                unsafe { Self($exp2) }
            }
            #[inline(always)]
            unsafe fn any(self) -> bool {
                let $nv = self.0;
                unsafe { $any != 0 }
            }
            #[inline(always)]
            unsafe fn step(self, b: Self) -> Self {
                let ($ta, $tb) = (self.0, b.0);
                unsafe { Self($step) }
            }
            #[inline(always)]
            unsafe fn interleave(self, b: Self) -> (Self, Self) {
                let ($ia, $ib) = (self.0, b.0);
                let (first, second) = unsafe { $interleave };
                (Self(first), Self(second))
            }
            $(#[inline(always)]
            unsafe fn select(self, keep: Self, $kp: *mut $T) {
                let ($kv, $kk) = (self.0, keep.0);
                unsafe { $select }
            })?
            $(#[inline(always)]
            unsafe fn expand($ep: *const $T, wanted: Self) -> (Self, usize) {
                let $ew = wanted.0;
                let (lanes, n) = unsafe { $expand };
                (Self(lanes), n)
            })?
            $(#[inline(always)]
            unsafe fn cut(self, $up: *mut u32) {
                let $uv = self.0;
                unsafe { $cut }
            })?
            $(#[inline(always)]
            unsafe fn meets($mt: u32, $mo: *const u32) -> bool {
                unsafe { $meets }
            })?
            $(#[inline(always)]
            unsafe fn coincide($dt: u32, $do: *const u32) -> (Self, Self) {
                let (number, differ) = unsafe { $coincide };
                (Self(number), Self(differ))
            })?
            $(#[inline(always)]
            unsafe fn coincide_once($ot: u32, $oo: *const u32) -> (Self, Self) {
                let (number, differ) = unsafe { $coincide_once };
                (Self(number), Self(differ))
            })?
            $(#[inline(always)]
            unsafe fn compress($cp: *const $T, $cf: u32, $ci: *mut u32, $cv: *mut $T) -> usize {
                unsafe { $compress }
            })?
        }
    };
}

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

/// A mask whose first `n` lanes are set, for the 32-bit lanes of AVX2.
#[inline(always)]
unsafe fn first_32(n: usize) -> __m256i {
    // SAFETY: only called where AVX2 is there.
    unsafe {
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
    }
}

/// A mask whose first `n` lanes are set, for the 64-bit lanes of AVX2.
#[inline(always)]
unsafe fn first_64(n: usize) -> __m256i {
    // SAFETY: only called where AVX2 is there.
    unsafe { _mm256_cmpgt_epi64(_mm256_set1_epi64x(n as i64), _mm256_setr_epi64x(0, 1, 2, 3)) }
}

/// Sum of four lanes: (0 + 2) + (1 + 3).
#[inline(always)]
unsafe fn sum_4(v: __m128) -> f32 {
    // SAFETY: SSE is part of x86-64.
    unsafe {
        let pairs = _mm_add_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs)))
    }
}

/// Sum of eight lanes, folding halves.
#[inline(always)]
unsafe fn sum_8(v: __m256) -> f32 {
    // SAFETY: only called where AVX is there.
    unsafe { sum_4(_mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v))) }
}

/// The largest of eight non-negative integers.
#[inline(always)]
unsafe fn largest_8(v: __m256i) -> u32 {
    // SAFETY: only called where AVX2 is there.
    unsafe {
        let v = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        let v = _mm_max_epi32(v, _mm_shuffle_epi32::<0b01_00_11_10>(v));
        _mm_cvtsi128_si32(_mm_max_epi32(v, _mm_shuffle_epi32::<0b10_11_00_01>(v))) as u32
    }
}

/// Sum of four doubles, folding halves.
#[inline(always)]
unsafe fn sum_4d(v: __m256d) -> f64 {
    // SAFETY: only called where AVX is there.
    unsafe {
        let pair = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd::<1>(v));
        _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)))
    }
}

vector! {
    /// Eight f32 of AVX2.
    F32x8(__m256) of f32 x 8 in 16;
    splat _mm256_set1_ps; load _mm256_loadu_ps; store _mm256_storeu_ps;
    load_first |p, n| _mm256_maskload_ps(p, first_32(n));
    store_first |v, p, n| _mm256_maskstore_ps(p, first_32(n), v);
    add _mm256_add_ps; sub _mm256_sub_ps; mul _mm256_mul_ps; div _mm256_div_ps; fma _mm256_fmadd_ps;
    min _mm256_min_ps; max _mm256_max_ps;
    max_magnitude |a, b| _mm256_castsi256_ps(_mm256_max_epi32(
        _mm256_castps_si256(a),
        _mm256_and_si256(_mm256_castps_si256(b), _mm256_set1_epi32(i32::MAX)),
    ));
    sum |v| sum_8(v);
    largest |v| largest_8(_mm256_castps_si256(v));
    any |v| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(v, _mm256_setzero_ps()));
    round |v| _mm256_round_ps::<NEAREST>(v);
    sqrt _mm256_sqrt_ps;
    exp2_integer |v| _mm256_castsi256_ps(_mm256_slli_epi32::<23>(
        _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(127)),
    ));
    step |a, b| _mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(a, b), _mm256_set1_ps(1.0));
    interleave |a, b| {
        let (even, odd) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        (_mm256_permute2f128_ps::<0x20>(even, odd), _mm256_permute2f128_ps::<0x31>(even, odd))
    };
}

vector! {
    /// Four f64 of AVX2.
    F64x4(__m256d) of f64 x 4 in 16;
    splat _mm256_set1_pd; load _mm256_loadu_pd; store _mm256_storeu_pd;
    load_first |p, n| _mm256_maskload_pd(p, first_64(n));
    store_first |v, p, n| _mm256_maskstore_pd(p, first_64(n), v);
    add _mm256_add_pd; sub _mm256_sub_pd; mul _mm256_mul_pd; div _mm256_div_pd; fma _mm256_fmadd_pd;
    min _mm256_min_pd; max _mm256_max_pd;
    max_magnitude |a, b| {
        let b = _mm256_and_pd(b, _mm256_castsi256_pd(_mm256_set1_epi64x(i64::MAX)));
        let a_larger = _mm256_cmpgt_epi64(_mm256_castpd_si256(a), _mm256_castpd_si256(b));
        _mm256_blendv_pd(b, a, _mm256_castsi256_pd(a_larger))
    };
    sum |v| sum_4d(v);
    largest |v| {
        let mut lanes = [0u64; 4];
        _mm256_storeu_pd(lanes.as_mut_ptr().cast(), v);
        lanes[0].max(lanes[1]).max(lanes[2].max(lanes[3]))
    };
    any |v| _mm256_movemask_pd(_mm256_cmp_pd::<_CMP_NEQ_UQ>(v, _mm256_setzero_pd()));
    round |v| _mm256_round_pd::<NEAREST>(v);
    sqrt _mm256_sqrt_pd;
    exp2_integer |v| _mm256_castsi256_pd(_mm256_slli_epi64::<52>(_mm256_add_epi64(
        _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(v)),
        _mm256_set1_epi64x(1023),
    )));
    step |a, b| _mm256_and_pd(_mm256_cmp_pd::<_CMP_GE_OQ>(a, b), _mm256_set1_pd(1.0));
    interleave |a, b| {
        let (even, odd) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
        (_mm256_permute2f128_pd::<0x20>(even, odd), _mm256_permute2f128_pd::<0x31>(even, odd))
    };
}

vector! {
    /// Sixteen f32 of AVX-512.
    F32x16(__m512) of f32 x 16 in 32;
    splat _mm512_set1_ps; load _mm512_loadu_ps; store _mm512_storeu_ps;
    load_first |p, n| _mm512_maskz_loadu_ps((1u16 << n) - 1, p);
    store_first |v, p, n| _mm512_mask_storeu_ps(p, (1u16 << n) - 1, v);
    add _mm512_add_ps; sub _mm512_sub_ps; mul _mm512_mul_ps; div _mm512_div_ps; fma _mm512_fmadd_ps;
    min _mm512_min_ps; max _mm512_max_ps;
    max_magnitude |a, b| _mm512_castsi512_ps(_mm512_max_epi32(
        _mm512_castps_si512(a),
        _mm512_and_si512(_mm512_castps_si512(b), _mm512_set1_epi32(i32::MAX)),
    ));
    sum |v| sum_8(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)));
    largest |v| {
        let v = _mm512_castps_si512(v);
        largest_8(_mm256_max_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64::<1>(v)))
    };
    any |v| _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(v, _mm512_setzero_ps());
    round |v| _mm512_roundscale_ps::<NEAREST>(v);
    sqrt _mm512_sqrt_ps;
    exp2_integer |v| _mm512_castsi512_ps(_mm512_slli_epi32::<23>(
        _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(127)),
    ));
    step |a, b| _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(a, b), _mm512_set1_ps(1.0));
    interleave |a, b| {
        let first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
        (_mm512_permutex2var_ps(a, first, b), _mm512_permutex2var_ps(a, second, b))
    };
    select |v, keep, p| {
        let keep = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(keep, _mm512_setzero_ps());
        _mm512_storeu_ps(p, _mm512_maskz_compress_ps(keep, v));
    };
    expand |p, wanted| {
        let wanted = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(wanted, _mm512_setzero_ps());
        (_mm512_maskz_expand_ps(wanted, _mm512_loadu_ps(p)), wanted.count_ones() as usize)
    };
    cut |v, p| _mm512_storeu_si512(p.cast(), _mm512_cvttps_epu32(v));
    meets |train, others| {
        let train = _mm512_set1_epi32((train & (u32::MAX >> 1)) as i32);
        _mm512_test_epi32_mask(train, _mm512_loadu_si512(others.cast())) != 0
    };
    coincide |train, others| {
        let (train, others) = (_mm512_set1_epi32(train as i32), _mm512_loadu_si512(others.cast()));
        // The ones of half a byte from a table; the four bytes of a lane are added by products with
        // one.
        let counts = _mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
        let table = _mm512_broadcast_i32x4(counts);
        let half = _mm512_set1_epi8(15);
        let common = _mm512_and_si512(_mm512_and_si512(train, others), _mm512_set1_epi32(i32::MAX));
        let low = _mm512_shuffle_epi8(table, _mm512_and_si512(common, half));
        let shifted = _mm512_srli_epi16::<4>(common);
        let high = _mm512_shuffle_epi8(table, _mm512_and_si512(shifted, half));
        let pairs = _mm512_maddubs_epi16(_mm512_add_epi8(low, high), _mm512_set1_epi8(1));
        let number = _mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
        let differ = _mm512_srli_epi32::<31>(_mm512_xor_si512(train, others));
        (_mm512_cvtepi32_ps(number), _mm512_cvtepi32_ps(differ))
    };
    coincide_once |train, others| {
        let (train, others) = (_mm512_set1_epi32(train as i32), _mm512_loadu_si512(others.cast()));
        let (ones, one) = (_mm512_set1_epi32(i32::MAX), _mm512_set1_ps(1.0));
        let common = _mm512_test_epi32_mask(_mm512_and_si512(train, ones), others);
        let differ = _mm512_movepi32_mask(_mm512_xor_si512(train, others));
        (_mm512_maskz_mov_ps(common, one), _mm512_maskz_mov_ps(differ, one))
    };
    compress |p, first, index, value| {
        let v = _mm512_loadu_ps(p);
        // Not-equal, true for NaN. Compressing to a register and storing it whole beats the masked
        // store.
        let keep = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(v, _mm512_setzero_ps());
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let positions = _mm512_add_epi32(lanes, _mm512_set1_epi32(first as i32));
        _mm512_storeu_ps(value, _mm512_maskz_compress_ps(keep, v));
        _mm512_storeu_si512(index.cast(), _mm512_maskz_compress_epi32(keep, positions));
        keep.count_ones() as usize
    };
}

vector! {
    /// Eight f64 of AVX-512.
    F64x8(__m512d) of f64 x 8 in 32;
    splat _mm512_set1_pd; load _mm512_loadu_pd; store _mm512_storeu_pd;
    load_first |p, n| _mm512_maskz_loadu_pd((1u8 << n) - 1, p);
    store_first |v, p, n| _mm512_mask_storeu_pd(p, (1u8 << n) - 1, v);
    add _mm512_add_pd; sub _mm512_sub_pd; mul _mm512_mul_pd; div _mm512_div_pd; fma _mm512_fmadd_pd;
    min _mm512_min_pd; max _mm512_max_pd;
    max_magnitude |a, b| _mm512_castsi512_pd(_mm512_max_epi64(
        _mm512_castpd_si512(a),
        _mm512_and_si512(_mm512_castpd_si512(b), _mm512_set1_epi64(i64::MAX)),
    ));
    sum |v| sum_4d(_mm256_add_pd(_mm512_castpd512_pd256(v), _mm512_extractf64x4_pd::<1>(v)));
    largest |v| _mm512_reduce_max_epi64(_mm512_castpd_si512(v)) as u64;
    any |v| _mm512_cmp_pd_mask::<_CMP_NEQ_UQ>(v, _mm512_setzero_pd());
    round |v| _mm512_roundscale_pd::<NEAREST>(v);
    sqrt _mm512_sqrt_pd;
    exp2_integer |v| _mm512_castsi512_pd(_mm512_slli_epi64::<52>(
        _mm512_add_epi64(_mm512_cvtpd_epi64(v), _mm512_set1_epi64(1023)),
    ));
    step |a, b| _mm512_maskz_mov_pd(_mm512_cmp_pd_mask::<_CMP_GE_OQ>(a, b), _mm512_set1_pd(1.0));
    interleave |a, b| {
        let first = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
        let second = _mm512_add_epi64(first, _mm512_set1_epi64(4));
        (_mm512_permutex2var_pd(a, first, b), _mm512_permutex2var_pd(a, second, b))
    };
    select |v, keep, p| {
        let keep = _mm512_cmp_pd_mask::<_CMP_NEQ_UQ>(keep, _mm512_setzero_pd());
        _mm512_storeu_pd(p, _mm512_maskz_compress_pd(keep, v));
    };
    expand |p, wanted| {
        let wanted = _mm512_cmp_pd_mask::<_CMP_NEQ_UQ>(wanted, _mm512_setzero_pd());
        (_mm512_maskz_expand_pd(wanted, _mm512_loadu_pd(p)), wanted.count_ones() as usize)
    };
    cut |v, p| _mm256_storeu_si256(p.cast(), _mm512_cvttpd_epu32(v));
}
