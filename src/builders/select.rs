//! Selects a builder for a platform's next target. Pure: no engine, no clock.
//!
//! Native builders are always preferred. An emulating builder is selected only if no native one is alive: emulation
//! takes many times longer than waiting for a slot.

/// How a builder supports the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    Native,
    Emulated,
}

/// The state of a builder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// `None` if it is dead, or does not support the platform.
    pub fit: Option<Fit>,
    /// Leased slots.
    pub used: usize,
    pub slots: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This builder has a free slot.
    Take(usize),
    /// All suitable builders are busy.
    Wait,
    /// No suitable builder is left.
    NoneLeft,
}

/// Selects a builder now.
pub(super) fn choose(all: &[Candidate]) -> Choice {
    match best_fit(all) {
        None => Choice::NoneLeft,
        Some(fit) => least_used(all, |s| s.fit == Some(fit) && s.used < s.slots).map_or(Choice::Wait, Choice::Take),
    }
}

/// The builder that a target would finally get, including waiting.
pub(super) fn foresee(all: &[Candidate]) -> Option<usize> {
    let fit = best_fit(all)?;
    least_used(all, |s| s.fit == Some(fit))
}

fn best_fit(all: &[Candidate]) -> Option<Fit> {
    all.iter().filter_map(|s| s.fit).min()
}

/// The lowest share of used slots; the first of equals.
fn least_used(all: &[Candidate], may: impl Fn(&Candidate) -> bool) -> Option<usize> {
    let open = all.iter().enumerate().filter(|(_, s)| may(s));
    open.min_by(|(_, a), (_, b)| (a.used * b.slots).cmp(&(b.used * a.slots)))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(fit: Option<Fit>, used: usize, slots: usize) -> Candidate {
        Candidate { fit, used, slots }
    }

    const NATIVE: Option<Fit> = Some(Fit::Native);
    const EMULATED: Option<Fit> = Some(Fit::Emulated);

    #[test]
    fn a_native_builder_is_waited_for_rather_than_emulated() {
        let emulator = candidate(EMULATED, 0, 4);
        assert_eq!(choose(&[emulator, candidate(NATIVE, 1, 2)]), Choice::Take(1));
        assert_eq!(choose(&[emulator, candidate(NATIVE, 2, 2)]), Choice::Wait);
        // The native builder is dead.
        assert_eq!(choose(&[emulator, candidate(None, 0, 2)]), Choice::Take(0));
        assert_eq!(
            choose(&[candidate(EMULATED, 4, 4), candidate(None, 0, 2)]),
            Choice::Wait
        );
        assert_eq!(choose(&[candidate(None, 0, 2)]), Choice::NoneLeft);
        assert_eq!(choose(&[]), Choice::NoneLeft);
    }

    #[test]
    fn the_least_used_is_taken_and_the_first_of_equals() {
        assert_eq!(
            choose(&[candidate(NATIVE, 0, 2), candidate(NATIVE, 0, 8)]),
            Choice::Take(0)
        );
        assert_eq!(
            choose(&[candidate(NATIVE, 1, 2), candidate(NATIVE, 2, 8)]),
            Choice::Take(1)
        );
        assert_eq!(
            choose(&[candidate(NATIVE, 2, 2), candidate(NATIVE, 7, 8)]),
            Choice::Take(1)
        );
    }

    #[test]
    fn what_is_foreseen_is_spread_by_slots() {
        let mut all = [
            candidate(NATIVE, 0, 1),
            candidate(NATIVE, 0, 3),
            candidate(EMULATED, 0, 9),
        ];
        let mut given = Vec::new();
        for _ in 0..8 {
            let index = foresee(&all).unwrap();
            all[index].used += 1;
            given.push(index);
        }
        assert_eq!([0, 1, 2].map(|i| given.iter().filter(|g| **g == i).count()), [2, 6, 0]);
        assert_eq!(given[..2], [0, 1]);
    }
}
