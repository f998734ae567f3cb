//! Numbers that a seed decides, so that a round can be played again. Not for secrets.

use bailiwick_types::failpoint;

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed and what tells one use of it from another.
    pub fn new(seed: u64, parts: &[u64]) -> Self {
        let mut random = Self(seed);
        for part in parts {
            random.0 = random.draw() ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        random
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One below `end`, which is at least 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw() % end.max(1)
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap_or(0)]
    }

    /// In another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, usize::try_from(self.below(end as u64 + 1)).unwrap_or(0));
        }
    }
}

/// How a life of the server ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Death {
    /// At a fail-point, at the n-th time.
    Point(&'static str, u64),
    /// After so many milliseconds of load.
    After(u64),
}

/// The deaths of a run: every fail-point before any comes a second time, in an order of the seed's, and
/// in each round one life more than that ends at any moment.
pub fn deaths(seed: u64, rounds: u64) -> Vec<Vec<Death>> {
    let mut random = Random::new(seed, &[1]);
    let mut waiting: Vec<&'static str> = Vec::new();
    (0..rounds)
        .map(|round| {
            let mut lives = Vec::new();
            for _ in 0..2 {
                if waiting.is_empty() {
                    waiting = failpoint::ALL.to_vec();
                    random.shuffle(&mut waiting);
                }
                if let Some(point) = waiting.pop() {
                    lives.push(Death::Point(point, 1 + random.below(most(point))));
                }
            }
            if round % 3 == 0 {
                lives.push(Death::After(150 + random.below(2_000)));
            }
            random.shuffle(&mut lives);
            lives
        })
        .collect()
}

/// How often a fail-point is surely passed in one life under load.
fn most(point: &str) -> u64 {
    match point {
        "store.before_commit" | "store.after_commit" | "answer.made" => 120,
        "model.intent" | "model.effect" => 25,
        "tool.intent" | "tool.effect" => 12,
        "file.temporary" | "file.renamed" => 10,
        _ => 3,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_deaths_and_another_gives_others() {
        assert_eq!(deaths(7, 6), deaths(7, 6));
        assert_ne!(deaths(7, 6), deaths(8, 6));
    }

    #[test]
    fn six_rounds_have_every_fail_point() {
        let deaths: Vec<Death> = deaths(1, 6).into_iter().flatten().collect();
        for point in failpoint::ALL {
            assert!(deaths.iter().any(|death| matches!(death, Death::Point(name, _) if name == point)), "{point}");
        }
        assert!(deaths.iter().any(|death| matches!(death, Death::After(_))));
    }
}
