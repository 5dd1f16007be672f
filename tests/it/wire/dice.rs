//! Numbers for random requests, the same in every run, and how many of them a run makes.

/// A generator whose numbers its seed decides.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// Below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    /// Once in `count` times.
    pub fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn of<'a, T: ?Sized>(&mut self, choice: &[&'a T]) -> &'a T {
        choice[self.below(choice.len())]
    }
}

/// How many random requests a test makes: so many, or what `HOOKWARD_WIRE_REQUESTS` says.
pub fn amount(usual: usize) -> usize {
    let wished = std::env::var("HOOKWARD_WIRE_REQUESTS").ok();
    wished.map_or(usual, |wished| wished.parse().expect("a number"))
}
