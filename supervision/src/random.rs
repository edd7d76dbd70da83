//! Chance, as a part of the state: the same seed gives the same life.

use std::time::Duration;

/// Marsaglia's xorshift with 64 bits. It protects nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // 0 would stay 0 for ever.
        Self(seed | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// `pause`, made shorter or longer by at most so many hundredths.
    pub fn vary(&mut self, pause: Duration, percent: u8) -> Duration {
        if percent == 0 {
            return pause;
        }
        let hundredth = pause / 100;
        let span = u64::from(percent.min(100)) * 2 + 1;
        let Ok(share) = u32::try_from(self.next() % span) else { return pause };
        pause - hundredth * u32::from(percent.min(100)) + hundredth * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_varies_by_at_most_its_share_and_does_vary() {
        let pause = Duration::from_secs(10);
        let mut random = Random::new(7);
        let pauses: Vec<Duration> = (0..1000).map(|_| random.vary(pause, 20)).collect();
        assert!(
            pauses.iter().all(|pause| (8..=12).contains(&pause.as_secs()) && pause.as_secs_f64() <= 12.0)
        );
        assert!(pauses.iter().any(|pause| pause.as_secs() == 8) && pauses.iter().any(|p| p.as_secs() == 11));
        assert_eq!(random.vary(pause, 0), pause);
    }
}
