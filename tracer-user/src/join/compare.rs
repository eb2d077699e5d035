//! Compares eight numbers at once.
//!
//! Left to itself the compiler takes three times as many instructions, because it does not know of the one that gathers
//! the results.

/// Numbers that are compared.
pub(super) const LANES: usize = 8;
/// Bits of a result that stand for one of them.
pub(super) const BITS_PER_LANE: u32 = 2;

/// [`BITS_PER_LANE`] ones for each number that is `wanted` but for the bits of `ignored`, which are 0 in `wanted`; those of the
/// first number come last.
#[inline(always)]
pub(super) fn lanes_with(numbers: &[u32; LANES], ignored: u32, wanted: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this kind has SSE2.
    unsafe {
        sse2(numbers, ignored, wanted)
    }
    #[cfg(not(target_arch = "x86_64"))]
    one_by_one(numbers, ignored, wanted)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn sse2(numbers: &[u32; LANES], ignored: u32, wanted: u32) -> u32 {
    use std::arch::x86_64::{
        _mm_and_si128, _mm_cmpeq_epi32, _mm_movemask_epi8, _mm_packs_epi32, _mm_set_epi32, _mm_set1_epi32,
    };
    let [first, second, third, fourth, fifth, sixth, seventh, eighth] = numbers.map(u32::cast_signed);
    let (regarded, wanted) = (_mm_set1_epi32((!ignored).cast_signed()), _mm_set1_epi32(wanted.cast_signed()));
    let low = _mm_and_si128(_mm_set_epi32(fourth, third, second, first), regarded);
    let high = _mm_and_si128(_mm_set_epi32(eighth, seventh, sixth, fifth), regarded);
    let equal = _mm_packs_epi32(_mm_cmpeq_epi32(low, wanted), _mm_cmpeq_epi32(high, wanted));
    _mm_movemask_epi8(equal).cast_unsigned()
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn one_by_one(numbers: &[u32; LANES], ignored: u32, wanted: u32) -> u32 {
    let ones = (1 << BITS_PER_LANE) - 1;
    let bits = |(lane, number): (u32, &u32)| {
        if number & !ignored == wanted { ones << (BITS_PER_LANE * lane) } else { 0 }
    };
    (0..).zip(numbers).map(bits).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_that_is_wanted_has_its_bits_and_no_other() {
        for wanted_lanes in 0..1_u32 << LANES {
            let number = |lane: usize| {
                let is_wanted = wanted_lanes >> lane & 1 == 1;
                let number = if is_wanted { 0xfedc_ba98 } else { 0xfedc_ba98 ^ (2 << (3 * lane)) };
                if lane.is_multiple_of(2) { number } else { number | 1 }
            };
            let numbers = std::array::from_fn(number);
            let found = lanes_with(&numbers, 1, 0xfedc_ba98);
            assert_eq!(found, one_by_one(&numbers, 1, 0xfedc_ba98), "{wanted_lanes:b}");
            for lane in 0..8 {
                let bits = found >> (BITS_PER_LANE * lane) & 0b11;
                assert_eq!(
                    bits,
                    if wanted_lanes >> lane & 1 == 1 { 0b11 } else { 0 },
                    "{wanted_lanes:b} {lane}"
                );
            }
        }
    }
}
