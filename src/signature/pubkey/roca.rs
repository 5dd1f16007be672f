//! RSA keys made by the library of CVE-2017-15361 ("ROCA"), which can be factored.
//!
//! Its primes are powers of 65537 modulo a product of small primes, plus a multiple of that product. So the modulus is
//! such a power modulo each of the small primes; of sound keys about one in 2^27 is, and it is lost with them. Asked once
//! for each RSA key that is read.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "rests of division by less than 168, times 256 at most"
)]

/// The odd primes up to 167.
const SMALL_PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Whether the modulus, big-endian, bears the marks.
pub(super) fn has_marks(modulus: &[u8]) -> bool {
    SMALL_PRIMES.iter().all(|prime| {
        let rest = modulus
            .iter()
            .fold(0, |rest: u32, byte| (rest * 256 + u32::from(*byte)) % prime);
        is_power(rest, *prime)
    })
}

/// Whether `number` is a power of 65537 modulo `prime`.
fn is_power(number: u32, prime: u32) -> bool {
    let mut power = 1;
    for _ in 0..prime {
        if power == number {
            return true;
        }
        power = power * (65537 % prime) % prime;
    }
    false
}
