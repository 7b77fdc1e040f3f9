//! Builders as one platform sees them -> the one that its next target goes to. Pure: no engine, no clock.
//!
//! A builder whose machine is the platform's own is always preferred. One that emulates is chosen only where no native one
//! is alive: emulation takes many times as long as waiting for a slot.

/// How a builder can serve the platform in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    Native,
    Emulated,
}

/// One builder, as it stands now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// `None` if it is dead, or cannot serve the platform.
    pub fit: Option<Fit>,
    /// Targets that it was given.
    pub used: usize,
    pub slots: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// This one has a free slot.
    Take(usize),
    /// Those that may be taken have none.
    Wait,
    /// There is none any more.
    Nobody,
}

/// The builder to take now.
pub(super) fn choose(all: &[Standing]) -> Choice {
    match best_fit(all) {
        None => Choice::Nobody,
        Some(fit) => least_used(all, |s| s.fit == Some(fit) && s.used < s.slots).map_or(Choice::Wait, Choice::Take),
    }
}

/// The builder that a target would go to in the end, whether or not it would have to wait there.
pub(super) fn foresee(all: &[Standing]) -> Option<usize> {
    let fit = best_fit(all)?;
    least_used(all, |s| s.fit == Some(fit))
}

fn best_fit(all: &[Standing]) -> Option<Fit> {
    all.iter().filter_map(|s| s.fit).min()
}

/// By share of its slots; the first of equals.
fn least_used(all: &[Standing], may: impl Fn(&Standing) -> bool) -> Option<usize> {
    let open = all.iter().enumerate().filter(|(_, s)| may(s));
    open.min_by(|(_, a), (_, b)| (a.used * b.slots).cmp(&(b.used * a.slots)))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(fit: Option<Fit>, used: usize, slots: usize) -> Standing {
        Standing { fit, used, slots }
    }

    const NATIVE: Option<Fit> = Some(Fit::Native);
    const EMULATED: Option<Fit> = Some(Fit::Emulated);

    #[test]
    fn a_native_builder_is_waited_for_rather_than_emulated() {
        let emulator = standing(EMULATED, 0, 4);
        assert_eq!(choose(&[emulator, standing(NATIVE, 1, 2)]), Choice::Take(1));
        assert_eq!(choose(&[emulator, standing(NATIVE, 2, 2)]), Choice::Wait);
        // The native one is dead.
        assert_eq!(choose(&[emulator, standing(None, 0, 2)]), Choice::Take(0));
        assert_eq!(choose(&[standing(EMULATED, 4, 4), standing(None, 0, 2)]), Choice::Wait);
        assert_eq!(choose(&[standing(None, 0, 2)]), Choice::Nobody);
        assert_eq!(choose(&[]), Choice::Nobody);
    }

    #[test]
    fn the_least_used_is_taken_and_the_first_of_equals() {
        assert_eq!(
            choose(&[standing(NATIVE, 0, 2), standing(NATIVE, 0, 8)]),
            Choice::Take(0)
        );
        assert_eq!(
            choose(&[standing(NATIVE, 1, 2), standing(NATIVE, 2, 8)]),
            Choice::Take(1)
        );
        assert_eq!(
            choose(&[standing(NATIVE, 2, 2), standing(NATIVE, 7, 8)]),
            Choice::Take(1)
        );
    }

    #[test]
    fn what_is_foreseen_is_spread_by_slots() {
        let mut all = [standing(NATIVE, 0, 1), standing(NATIVE, 0, 3), standing(EMULATED, 0, 9)];
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
