//! Logarithms that are finite at zero.

/// A logarithm of numbers that are not negative, to a few units in the last place, finite at zero.
/// Without branches.
///
/// u is m 2^n, with m between the square root of one half and its double, and ln m is 2 artanh t
/// with t = (m - 1) / (m + 1),
/// |t| <= 0.172: as many terms of its series as end below the rounding error.
macro_rules! finite_ln {
    ($name:ident, $T:ident, $terms:literal, low: $low:literal) => {
        #[inline(always)]
        pub(crate) fn $name(u: $T) -> $T {
            const MANTISSA: u32 = $T::MANTISSA_DIGITS - 1;
            const BIAS: $T = ($T::MAX_EXP - 1) as $T;
            let one = (1.0 as $T).to_bits();
            let bits = u.to_bits().wrapping_add(one - $low);
            // The exponent as a float: its bits make the low end of a mantissa whose last place is
            // one.
            let shift = (1u64 << MANTISSA) as $T;
            let exponent = $T::from_bits((bits >> MANTISSA) | shift.to_bits()) - (shift + BIAS);
            let m = $T::from_bits((bits & !$T::INFINITY.to_bits()).wrapping_add($low));
            let t = (m - 1.0) / (m + 1.0);
            let square = t * t;
            let mut sum = 1.0 / (2 * $terms + 1) as $T;
            for k in (0..$terms).rev() {
                sum = sum * square + 1.0 / (2 * k + 1) as $T;
            }
            exponent * std::$T::consts::LN_2 + 2.0 * t * sum
        }
    };
}
finite_ln!(finite_ln_f32, f32, 4, low: 0x3F35_04F3);
finite_ln!(finite_ln_f64, f64, 10, low: 0x3FE6_A09E_667F_3BCD);
