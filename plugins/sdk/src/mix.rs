//! The step from a seed to a number that looks random.

/// Spreads the bits of `seed` over a whole word: nearby seeds give unrelated numbers, and the same seed always the same one.
///
/// One step of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
pub const fn mix64(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::mix64;

    /// The reference implementation's first outputs for the state 0: each step adds the constant once more.
    #[test]
    fn the_reference_sequence_comes_out() {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let sequence = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        for (step, expected) in sequence.into_iter().enumerate() {
            assert_eq!(mix64(STEP.wrapping_mul(step as u64)), expected);
        }
    }
}
