//! The kinds of guests.

/// What a guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Hardly moves.
    Steady,
    /// Climbs in steps which come ever more rarely.
    Staircase,
    /// Follows the hours of the day, less so at weekends.
    Diurnal,
    /// A program leaks until something restarts it, again and again.
    Leak,
    /// A job runs every few hours for some minutes.
    CronBurst,
    /// Climbs, and restarts every few hours to days.
    Reboot,
    /// Its balloon moves between two sizes.
    BalloonMove,
    /// Has no balloon device: no word from the guest.
    NoBalloon,
    /// The guest's statistics freeze for a while, every few hours.
    StaleStatistics,
    /// Nobody asks the guest: no statistics period is set.
    NoPeriod,
}

impl Profile {
    /// Every profile once, then the common ones again.
    const DECK: [Self; 20] = [
        Self::Steady,
        Self::Staircase,
        Self::Diurnal,
        Self::Leak,
        Self::CronBurst,
        Self::Reboot,
        Self::BalloonMove,
        Self::NoBalloon,
        Self::StaleStatistics,
        Self::NoPeriod,
        Self::Steady,
        Self::Diurnal,
        Self::Staircase,
        Self::Steady,
        Self::CronBurst,
        Self::Diurnal,
        Self::Leak,
        Self::Steady,
        Self::Staircase,
        Self::Diurnal,
    ];

    pub(super) fn of(guest: usize) -> Self {
        Self::DECK[guest % Self::DECK.len()]
    }

    /// The word that begins the names of such guests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Staircase => "staircase",
            Self::Diurnal => "diurnal",
            Self::Leak => "leak",
            Self::CronBurst => "cron-burst",
            Self::Reboot => "reboot",
            Self::BalloonMove => "balloon-move",
            Self::NoBalloon => "no-balloon",
            Self::StaleStatistics => "stale-statistics",
            Self::NoPeriod => "no-period",
        }
    }
}
