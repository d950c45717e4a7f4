//! The mesh clock: real time, or a replay that runs faster than the wall clock.
//!
//! Reading times, validity, cold start and backoff are mesh time; heartbeats, deadlines and leases are wall time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// Maps wall time to mesh time: both agree at the origin, from there `factor` mesh seconds pass in a wall second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeshClock {
    origin: Timestamp,
    factor: f64,
}

/// A clock that would stand still, run backwards or leave the calendar at once.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{0} is not within 0.001 and 1000000")]
pub struct FactorError(f64);

impl MeshClock {
    /// The wall clock itself.
    #[must_use]
    pub fn real() -> Self {
        Self { origin: Timestamp::UNIX_EPOCH, factor: 1.0 }
    }

    /// A clock that agrees with the wall clock at `origin`.
    ///
    /// # Errors
    /// `factor` (mesh seconds per wall second) is not within 0.001 and 1,000,000.
    pub fn new(origin: Timestamp, factor: f64) -> Result<Self, FactorError> {
        if (0.001..=1_000_000.0).contains(&factor) {
            Ok(Self { origin, factor })
        } else {
            Err(FactorError(factor))
        }
    }

    /// Mesh seconds in a wall second.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.factor
    }

    /// Whether mesh time is wall time.
    #[must_use]
    pub fn is_real(&self) -> bool {
        (self.factor - 1.0).abs() < f64::EPSILON
    }

    /// Mesh time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.mesh_of(Timestamp::now())
    }

    /// Mesh time at a wall time. Saturates at the ends of the calendar.
    #[must_use]
    pub fn mesh_of(&self, wall: Timestamp) -> Timestamp {
        if self.is_real() {
            return wall;
        }
        self.after_origin(scale(wall.duration_since(self.origin), self.factor))
    }

    /// Wall time at a mesh time. Saturates at the ends of the calendar.
    #[must_use]
    pub fn wall_of(&self, mesh: Timestamp) -> Timestamp {
        if self.is_real() {
            return mesh;
        }
        self.after_origin(scale(mesh.duration_since(self.origin), 1.0 / self.factor))
    }

    /// How long a mesh duration takes on the wall clock: what a timer must wait.
    #[must_use]
    pub fn wall_duration(&self, mesh: Duration) -> Duration {
        if self.is_real() { mesh } else { scale_unsigned(mesh, 1.0 / self.factor) }
    }

    /// How much mesh time passes in a wall duration.
    #[must_use]
    pub fn mesh_duration(&self, wall: Duration) -> Duration {
        if self.is_real() { wall } else { scale_unsigned(wall, self.factor) }
    }

    fn after_origin(&self, distance: SignedDuration) -> Timestamp {
        self.origin.checked_add(distance).unwrap_or(if distance.is_negative() {
            Timestamp::MIN
        } else {
            Timestamp::MAX
        })
    }
}

fn scale(duration: SignedDuration, factor: f64) -> SignedDuration {
    let seconds = duration.as_secs_f64() * factor;
    SignedDuration::try_from_secs_f64(seconds).unwrap_or(if seconds < 0.0 {
        SignedDuration::MIN
    } else {
        SignedDuration::MAX
    })
}

fn scale_unsigned(duration: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(duration.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn runs_sixty_times_as_fast() {
        let clock = MeshClock::new(at("2026-01-01T00:00:00Z"), 60.0).unwrap();
        assert_eq!(clock.mesh_of(at("2026-01-01T00:00:00Z")), at("2026-01-01T00:00:00Z"));
        assert_eq!(clock.mesh_of(at("2026-01-01T00:01:00Z")), at("2026-01-01T01:00:00Z"));
        assert_eq!(clock.wall_of(at("2026-01-01T01:00:00Z")), at("2026-01-01T00:01:00Z"));
        assert_eq!(clock.wall_duration(Duration::from_mins(5)), Duration::from_secs(5));
        assert_eq!(clock.mesh_duration(Duration::from_secs(5)), Duration::from_mins(5));
    }

    #[test]
    fn real_time_is_exact_and_the_calendar_has_ends() {
        let time = at("2026-01-01T00:00:00.123456789Z");
        assert_eq!(MeshClock::real().mesh_of(time), time);
        let fast = MeshClock::new(at("2026-01-01T00:00:00Z"), 1e6).unwrap();
        assert_eq!(fast.mesh_of(at("2126-01-01T00:00:00Z")), Timestamp::MAX);
        assert_eq!(fast.mesh_of(at("1926-01-01T00:00:00Z")), Timestamp::MIN);
    }

    #[test]
    fn refuses_a_clock_that_cannot_run() {
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(MeshClock::new(at("2026-01-01T00:00:00Z"), factor).is_err(), "{factor}");
        }
    }
}
