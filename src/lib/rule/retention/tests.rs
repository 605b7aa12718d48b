use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3_600_000_000;

fn stand(name: &str, hour: i64, position: &str) -> Stand {
    Stand { name: name.into(), ended: Time(hour * HOUR), position: position.parse().ok(), is_leased: false }
}

/// Bases that ended at 1, 2, 3 and 4 o'clock, each a segment later.
fn four() -> Vec<Stand> {
    (1..=4).map(|at| stand(&at.to_string(), at, &format!("1-{at}:0"))).collect()
}

fn kept(stands: &[Stand], count: Option<usize>, hours: Option<u64>, end: &str, now: i64) -> String {
    let keep = Keep { count, age: hours.map(|hours| Duration::from_secs(hours * 3600)) };
    let said = bases(stands, keep, end.parse().unwrap(), Time(now * HOUR));
    said.iter().zip(stands).filter(|(why, _)| why.is_some()).map(|(_, stand)| stand.name.as_str()).collect()
}

#[test]
fn without_a_word_all_bases_are_kept() {
    assert_eq!(kept(&four(), None, None, "1-9:0", 100), "1234");
}

#[test]
fn the_newest_by_number_are_kept_and_the_newest_always_is() {
    assert_eq!(kept(&four(), Some(2), None, "1-9:0", 100), "34");
    assert_eq!(kept(&four(), Some(9), None, "1-9:0", 100), "1234");
    assert_eq!(kept(&four(), Some(0), None, "1-9:0", 100), "4");
}

#[test]
fn by_age_the_one_from_which_that_time_is_reached_is_kept() {
    // Two hours before 5 o'clock is 3: the base that ended then reaches it.
    assert_eq!(kept(&four(), None, Some(2), "1-9:0", 5), "34");
    // Three and a half hours before 6 lies between the second and the third.
    let keep = Keep { count: None, age: Some(Duration::from_secs(7 * 1800)) };
    let said = bases(&four(), keep, "1-9:0".parse().unwrap(), Time(6 * HOUR));
    assert_eq!(said.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true, true]);
    assert_eq!(kept(&four(), None, Some(50), "1-9:0", 5), "1234");
    assert_eq!(kept(&four(), None, Some(1), "1-9:0", 100), "4");
}

#[test]
fn what_either_keeps_is_kept() {
    assert_eq!(kept(&four(), Some(1), Some(3), "1-9:0", 5), "234");
    assert_eq!(kept(&four(), Some(3), Some(1), "1-9:0", 100), "234");
}

#[test]
fn a_base_that_the_log_has_not_come_to_counts_for_nothing() {
    assert_eq!(kept(&four(), Some(1), None, "1-3:7", 100), "34");
    assert_eq!(kept(&four(), Some(1), None, "1-1:0", 100), "1234");
}

#[test]
fn a_base_that_a_recovery_has_is_kept() {
    let mut stands = four();
    stands[0].is_leased = true;
    assert_eq!(kept(&stands, Some(1), None, "1-9:0", 100), "14");
}

#[test]
fn a_base_without_position_keeps_all_log() {
    let need = |from: &str| Need { who: Who::End, from: from.parse().ok() };
    assert_eq!(horizon(&[]), None);
    assert_eq!(horizon(&[need("1-7:40"), need("1-5:9"), need("2-1:0")]), Some(Segment::new(1, 5)));
    assert_eq!(horizon(&[need("1-7:40"), need("")]), None);
}

#[test]
fn as_many_go_as_must() {
    for (bytes, count) in [(0, 0), (1, 1), (10, 1), (11, 2), (30, 3), (31, 3)] {
        assert_eq!(to_free([10, 10, 10], bytes), count, "{bytes}");
    }
}

fn any_position() -> impl Strategy<Value = Option<Position>> {
    proptest::option::weighted(0.9, (1..3_u64, 1..9_u64, 0..100_u64))
        .prop_map(|found| found.map(|(generation, sequence, offset)| Segment::new(generation, sequence).at(offset)))
}

prop_compose! {
    fn any_stand()(ended in 0..20_i64, position in any_position(), is_leased in any::<bool>(), name in "[a-z]{3}") -> Stand {
        Stand { name, ended: Time(ended * HOUR), position, is_leased }
    }
}

proptest! {
    #[test]
    fn what_goes_is_a_prefix_of_which_nobody_needs_anything(
        froms in proptest::collection::vec(any_position(), 0..6),
    ) {
        let needs: Vec<_> = froms.into_iter().map(|from| Need { who: Who::Feed, from }).collect();
        let horizon = horizon(&needs);
        for segment in (1..3).flat_map(|generation| (1..9).map(move |sequence| Segment::new(generation, sequence))) {
            if Some(segment) < horizon {
                prop_assert!(needs.iter().all(|need| !need.covers(segment)));
                prop_assert_eq!(keepers(&needs, segment), "");
            }
        }
    }

    #[test]
    fn no_base_goes_that_was_asked_for(
        stands in proptest::collection::vec(any_stand(), 0..8),
        count in proptest::option::of(0..5_usize),
        hours in proptest::option::of(0..25_u64),
        end in any_position(),
        now in 0..25_i64,
    ) {
        let end = end.unwrap_or(Segment::new(1, 9).at(0));
        let keep = Keep { count, age: hours.map(|hours| Duration::from_secs(hours * 3600)) };
        let said = bases(&stands, keep, end, Time(now * HOUR));
        let usable = |at: usize| stands[at].position.is_none_or(|position| position <= end);
        for (at, stand) in stands.iter().enumerate().filter(|(at, _)| said[*at].is_none()) {
            prop_assert!(usable(at) && !stand.is_leased);
            // One that goes has newer ones that stay, as many as were asked for.
            let newer: Vec<_> = (0..stands.len())
                .filter(|other| usable(*other) && *other != at && stands[*other].ended >= stand.ended)
                .filter(|other| said[*other].is_some())
                .collect();
            prop_assert!(!newer.is_empty() && newer.len() >= count.unwrap_or(0));
            if let Some(hours) = hours {
                // And from one of those the time that was asked for is reached.
                let since = (now - hours as i64) * HOUR;
                prop_assert!(newer.iter().any(|other| stands[*other].ended.0 <= since));
            }
        }
    }
}
