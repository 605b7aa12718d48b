//! Which acknowledgements make a position durable enough: Berkeley DB's policies, as a rule over what each site has.
//!
//! The master has everything, and counts as one of the sites in a quorum. A site that does not acknowledge counts nowhere.
//! A peer is a site that may become the master (priority above 0); a site that keeps log only, or has priority 0, is none,
//! and holds bytes as durably as any other.

use std::fmt;

use crate::value::position::Position;

/// Whose acknowledgements are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nobody's: what is here counts.
    None,
    /// Any one site's.
    One,
    /// Any one peer's.
    OnePeer,
    /// So many that they are, with this master, more than half of all.
    Quorum,
    /// All sites'.
    All,
    /// All peers'.
    AllPeers,
    /// Those of all that are connected, and of a quorum at least.
    AllAvailable,
}

/// What an acknowledgement says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Read and verified.
    Received,
    /// On stable storage.
    Flushed,
    /// Given to the database.
    Applied,
}

/// One site, as far as policies ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Whether it may become the master.
    pub is_peer: bool,
    /// Whether it is connected now.
    pub is_connected: bool,
    /// How far it is, at the level that is asked for.
    pub at: Option<Position>,
}

/// How far a policy is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// Everywhere: nobody's word is needed.
    Everything,
    /// Up to here.
    To(Position),
    /// Nowhere yet.
    Nothing,
}

impl Confirmed {
    /// Whether that includes a position.
    pub fn has(self, position: Position) -> bool {
        match self {
            Confirmed::Everything => true,
            Confirmed::To(confirmed) => confirmed >= position,
            Confirmed::Nothing => false,
        }
    }
}

impl Policy {
    /// Every policy with its name.
    pub const NAMES: [(Policy, &str); 7] = [
        (Policy::None, "none"),
        (Policy::One, "one"),
        (Policy::OnePeer, "one-peer"),
        (Policy::Quorum, "quorum"),
        (Policy::All, "all"),
        (Policy::AllPeers, "all-peers"),
        (Policy::AllAvailable, "all-available"),
    ];

    /// Reads a name.
    pub fn parse(text: &str) -> Result<Policy, String> {
        named(&Policy::NAMES, text)
    }

    /// How far these sites, which are all that acknowledge, meet the policy. Where there are none, only the policy that
    /// asks nobody is met: a promise that nobody gave is not kept by all.
    pub fn confirmed(self, voters: &[Voter]) -> Confirmed {
        let all = |_: &&Voter| true;
        let peers = |voter: &&Voter| voter.is_peer;
        match self {
            Policy::None => Confirmed::Everything,
            Policy::One => least_of(voters.iter().filter(all), 1),
            Policy::OnePeer => least_of(voters.iter().filter(peers), 1),
            Policy::Quorum => least_of(voters.iter().filter(all), quorum(voters.len())),
            Policy::All => least_of(voters.iter().filter(all), voters.len()),
            Policy::AllPeers => least_of(voters.iter().filter(peers), voters.iter().filter(peers).count()),
            Policy::AllAvailable => {
                let connected = || voters.iter().filter(|voter| voter.is_connected);
                let quorum = least_of(voters.iter().filter(all), quorum(voters.len()));
                match (connected().count(), quorum) {
                    (count @ 1.., Confirmed::To(quorum)) => match least_of(connected(), count) {
                        Confirmed::To(connected) => Confirmed::To(connected.min(quorum)),
                        confirmed => confirmed,
                    },
                    (_, quorum) => quorum,
                }
            }
        }
    }
}

/// How many of `sites` are, with the master, more than half of all.
fn quorum(sites: usize) -> usize {
    sites.div_ceil(2)
}

/// How far `count` of these are, at least; where nobody needs to be asked, nobody has confirmed anything.
fn least_of<'a>(voters: impl Iterator<Item = &'a Voter>, count: usize) -> Confirmed {
    let mut places: Vec<_> = voters.filter_map(|voter| voter.at).collect();
    places.sort_unstable_by(|one, other| other.cmp(one));
    let last = count.checked_sub(1).and_then(|last| places.get(last));
    last.map_or(Confirmed::Nothing, |last| Confirmed::To(*last))
}

impl Level {
    /// Every level with its name.
    pub const NAMES: [(Level, &str); 3] =
        [(Level::Received, "received"), (Level::Flushed, "flushed"), (Level::Applied, "applied")];

    /// Reads a name.
    pub fn parse(text: &str) -> Result<Level, String> {
        named(&Level::NAMES, text)
    }
}

fn named<T: Copy>(names: &[(T, &str)], text: &str) -> Result<T, String> {
    let known = || names.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
    let found = names.iter().find(|(_, name)| *name == text);
    found.map(|(value, _)| *value).ok_or_else(|| format!("'{text}' is not one of {}", known()))
}

impl fmt::Display for Policy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(Policy::NAMES.iter().find(|(policy, _)| policy == self).map_or("", |(_, name)| name))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(Level::NAMES.iter().find(|(level, _)| level == self).map_or("", |(_, name)| name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(offset: u64) -> Position {
        crate::value::position::Segment::new(1, 1).at(offset)
    }

    /// `5` has five bytes, `-` nothing; `p` is a peer, `c` is connected: "5pc -c 7p".
    fn voters(text: &str) -> Vec<Voter> {
        let voter = |word: &str| Voter {
            is_peer: word.contains('p'),
            is_connected: word.contains('c'),
            at: word.trim_end_matches(['p', 'c']).parse().ok().map(at),
        };
        text.split_whitespace().map(voter).collect()
    }

    /// How far each policy is met, as offsets, in the order of [`Policy::NAMES`] without `none`.
    fn confirmed(text: &str) -> Vec<i64> {
        let voters = voters(text);
        let offset = |policy: &(Policy, &str)| match policy.0.confirmed(&voters) {
            Confirmed::Everything => i64::MAX,
            Confirmed::To(position) => position.offset.cast_signed(),
            Confirmed::Nothing => -1,
        };
        assert_eq!(offset(&Policy::NAMES[0]), i64::MAX);
        Policy::NAMES[1..].iter().map(offset).collect()
    }

    #[test]
    fn each_policy_asks_whom_it_says() {
        // one, one-peer, quorum, all, all-peers, all-available
        assert_eq!(confirmed("5pc"), [5, 5, 5, 5, 5, 5]);
        assert_eq!(confirmed("-pc"), [-1, -1, -1, -1, -1, -1]);
        assert_eq!(confirmed(""), [-1, -1, -1, -1, -1, -1]);
        // Of two sites and the master, one and the master are a majority.
        assert_eq!(confirmed("5pc 3c"), [5, 5, 5, 3, 5, 3]);
        // Log only counts for durability, and never as a peer.
        assert_eq!(confirmed("5c 3pc"), [5, 3, 5, 3, 3, 3]);
        assert_eq!(confirmed("5c 4c"), [5, -1, 5, 4, -1, 4]);
        // Of five and the master, four are a majority: three sites.
        assert_eq!(confirmed("9pc 8pc 7pc - -"), [9, 9, 7, -1, 7, 7]);
        assert_eq!(confirmed("9pc 8pc - - -"), [9, 9, -1, -1, 8, -1]);
        // One that is away delays no "available" policy, as long as the others are a quorum.
        assert_eq!(confirmed("9pc 8pc 2p"), [9, 9, 8, 2, 2, 8]);
        assert_eq!(confirmed("9p 8p 2pc"), [9, 9, 8, 2, 2, 2]);
        // Nobody is connected, but a quorum has it.
        assert_eq!(confirmed("9p 8p 2p"), [9, 9, 8, 2, 2, 8]);
    }

    proptest! {
        /// What a quorum has survives in every majority: any two majorities share a site.
        #[test]
        fn a_quorum_is_in_every_majority(places in proptest::collection::vec(proptest::option::of(0u64..50), 1..8)) {
            let voters: Vec<_> =
                places.iter().map(|at_| Voter { is_peer: true, is_connected: true, at: at_.map(at) }).collect();
            if let Confirmed::To(quorum) = Policy::Quorum.confirmed(&voters) {
                let having = 1 + voters.iter().filter(|voter| voter.at >= Some(quorum)).count();
                prop_assert!(2 * having > voters.len() + 1);
                // And it is the farthest such place.
                let next = voters.iter().filter(|voter| voter.at > Some(quorum)).count() + 1;
                prop_assert!(2 * next <= voters.len() + 1);
            } else {
                let having = 1 + voters.iter().filter(|voter| voter.at.is_some()).count();
                prop_assert!(2 * having <= voters.len() + 1);
            }
        }

        /// A site that gets farther never makes a policy less met, and nothing is confirmed that nobody has.
        #[test]
        fn progress_never_takes_a_confirmation_back(
            places in proptest::collection::vec((proptest::option::of(0u64..50), any::<bool>(), any::<bool>()), 1..8),
            which in 0usize..8, more in 0u64..9,
        ) {
            let mut voters: Vec<_> = places
                .iter()
                .map(|(place, is_peer, is_connected)| Voter { is_peer: *is_peer, is_connected: *is_connected, at: place.map(at) })
                .collect();
            let before: Vec<_> = Policy::NAMES.iter().map(|(policy, _)| policy.confirmed(&voters)).collect();
            let which = which % voters.len();
            let place = voters[which].at.map_or(more, |place| place.offset + more);
            voters[which].at = Some(at(place));
            for ((policy, name), before) in Policy::NAMES.iter().zip(before) {
                let after = policy.confirmed(&voters);
                if let Confirmed::To(before) = before {
                    prop_assert!(after.has(before), "{name}");
                    prop_assert!(voters.iter().any(|voter| voter.at >= Some(before)), "{name}");
                }
            }
        }
    }

    #[test]
    fn names_are_read_back() {
        for (policy, name) in Policy::NAMES {
            assert_eq!((Policy::parse(name), policy.to_string().as_str()), (Ok(policy), name));
        }
        for (level, name) in Level::NAMES {
            assert_eq!((Level::parse(name), level.to_string().as_str()), (Ok(level), name));
        }
        assert!(Policy::parse("some").unwrap_err().contains("one-peer"));
    }
}
