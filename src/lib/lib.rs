//! The library behind the suite's commands: `repl-ship LOGDIR | ssh slave repl-apply LOGDIR`.
//!
//! # Bird's-eye view
//!
//! ```text
//!    master                                       slave
//!   ┌───────────────────────────────┐            ┌─────────────────────────────────────┐
//!   │ LOGDIR (only read)            │   frames   │                       LOGDIR        │
//!   │ log.1 ─┐                      │  (a pipe,  │                     ┌─> log.1       │
//!   │ log.2 ─┴> source ─> lane ─> outlet ─────────> frames ─> land ────┴─> log.2       │
//!   │             ^                 │    ssh)    │              │                      │
//!   │             │                 │            │              v                      │
//!   │          tracker <─────────────────────────── acks <── commit ──> site           │
//!   │             │                 │   lines    │              │       .repl/: lock,  │
//!   │             v                 │            │              v       position, …    │
//!   │ state: status.json, segments  │            │            feed ──> database (hook) │
//!   └───────────────────────────────┘            └─────────────────────────────────────┘
//! ```
//!
//! *Source* reads the safe extent of each segment, in order: complete, checked records that are on the master's own disk.
//! *Lane* is one connection: it proves where the receiver stands by a digest, then sends what the source hands out. With
//! many receivers there are many lanes; those that are up to date share one source, the *tap*. What each receiver has said
//! stands on the *board*, by which policies, status and waiting go.
//! *Land* puts bytes at their offset in the segment's own name, and compares where there are bytes already. *Commit* makes
//! them durable in groups; only then does the *site* move its position, and only then is there an acknowledgement. *Feed*
//! runs the database's own apply, over durable bytes, behind it all and never in the way of it.
//!
//! `repl-sync` makes directories equal. Its two ends are one program; the one that has the destination asks:
//!
//! ```text
//!    source                                       destination
//!   ┌───────────────────────────────┐            ┌─────────────────────────────────────┐
//!   │ SRC (only read)               │   asks     │  pass: list ─┐                      │
//!   │   │                           │ <──────────── lines (workers) <─ walk of DST,   │
//!   │   v                           │            │    │              pairs: what was   │
//!   │ source: lists, digests, pages │ ──────────────> │              proven equal      │
//!   │ errand: begin, stop, release  │   tells    │    v                                │
//!   └───────────────────────────────┘            │  ground: a stage, or a journal      │
//!                                                │    │ switch: exchanged, or replayed │
//!                                                │    v                                │
//!                                                │  DST, and its server                │
//!                                                └─────────────────────────────────────┘
//! ```
//!
//! # Floors
//!
//! A module imports its own floor or lower ones. `tests/tidy.rs` holds that.
//!
//! | floor | module | is | never |
//! |---|---|---|---|
//! | 0 | [`value`] | positions, digests, times, units, exit codes: parse, print, order | does I/O, reads a clock or the environment |
//! | 1 | [`rule`] | segment schemes, record scanners, the stream's grammar, verdicts: bytes in, values out | opens a path, reads a clock, spawns |
//! | 2 | [`edge`] | every open, fsync, rename, flock, spawn, signal and clock of the suite, once | knows what a segment or a verdict is |
//! | 3 | [`engine`] | what a command does, over readers, writers and directories | prints, parses a command line, knows ssh or the terminal |
//! | 4 | [`cli`] | shared arguments, words, progress, the service manager, exit codes | decides anything about log |
//! | | `src/bin` | one file per command: arguments, edges, one engine call, report | holds logic that a test could need |
//!
//! The network is touched in one place, [`edge::ssh`]; else a link is a command that the operator named, or the standard
//! streams.
//! Nothing removes from a master's log directory but `--purge` and `repl-prune`, and nothing writes there. Nothing is acknowledged before it is on
//! stable storage.
//!
//! # At 3 a.m.
//!
//! | what you see | where to look |
//! |---|---|
//! | an exit code | [`value::exit`], the one register |
//! | `gap`, `diverged`, `ahead` | [`rule::verdict`]; asked by the receiver where a stream begins: [`engine::apply`], its `land` |
//! | shipping stands still though the file grows | the scanner of the engine in [`rule::scheme`]: the file's end is not the log's end |
//! | the master's directory is read wrongly | [`engine::ship`], its `source` |
//! | the link comes and goes | [`engine::ship`] (back-off), [`edge::link`] (time-outs) |
//! | one receiver holds up others, or is read for twice | [`engine::ship`], its `tap` (who reads) and `fleet` (who starts and ends whom) |
//! | `repl-wait` returns too early, too late, never | [`rule::quorum`] (whose word is needed), the `board` of [`engine::ship`] (whose word counts), [`engine::ship::wait`] |
//! | a host key or a login is refused | [`edge::ssh`], its `host_key` and `login` |
//! | a frame is refused (6) | [`rule::stream`]; bytes on the wire: repl-stream(5) |
//! | acknowledged, but is it on disk? | the argument at the top of [`engine::apply`]'s `commit`; [`edge::slots`] and [`edge::dir`] below it |
//! | the standby does not apply | `repl-status` says since when, and whether it is paused; [`engine::apply::feed`], then [`edge::hook`]: the command's own output is in the error |
//! | the same with MariaDB's default feed | the `mariadb` beside it, and [`engine::mariadb`] |
//! | the master keeps too much log, or too little | [`engine::release`], [`engine::prune::master`]; [`engine::postgres`] (slots), [`engine::mariadb`] |
//! | an archive keeps too much, or has lost a base | `repl-prune --explain NAME`; the rules: [`rule::retention`], the order of steps: [`engine::prune::archive`] |
//! | a standby or an archive does not follow a timeline | [`engine::log`] (which segments are one history), [`rule::scheme::postgres`] |
//! | a state file looks odd | [`engine::site`] (what is in `.repl`), [`edge::journal`] and [`edge::slots`] (how it survives a crash) |
//! | a key may do too little or too much | [`cli::restrict`] |
//! | a flag that nobody gave, or a file's that does not hold | `--print-config`; who gives way to whom: [`cli::config`], its `merge`; keys for operands: its `feed` |
//! | a configuration is refused (2) | its text: [`rule::config`]; who may write it: [`edge::trusted`] |
//! | a server's recovery stops: "could not restore file" | [`engine::fetch`]: when it says "no such segment", and when 126 |
//! | a recovery is refused (3, 6), or ends elsewhere than it should | [`engine::recover`], its `prove`: which base, which log, which end |
//! | a target is refused (13), marked for ever (5), or begun anew | [`engine::recover::place`]: the marker, its steps, its lock; `lay` beside it: what is copied again |
//! | the database's own recovery fails (9) | [`engine::recover`], the file of the database beside it; its server's words are in the error |
//! | after a sync the server is down, or was never stopped | [`engine::sync::server`]: what it recorded, and what it looks at |
//! | a copy of a running master is not whole, or it refuses to be one | [`engine::sync::procedure`], the database's own file beside it |
//! | the replica's configuration, or a file of the master's, is (not) in the copy | [`engine::sync::profile`], its `names` |
//! | a sync is slow, or reads what has not changed | [`engine::sync::pairs`], [`engine::sync::digests`]: what may be trusted unread; [`engine::sync::line`]: what is asked |
//! | a base is refused, or ends elsewhere than expected | [`engine::base`], its `join`; the log in a copy: [`engine::archive::own`] |
//! | bases take too much space, or an earlier one has changed | [`engine::base`], its `copy`; names of one file: [`engine::sync::target`], its `part` |
//! | in which order a sync stops, switches and starts | [`engine::sync::drive`] |
//! | a name is (not) part of a sync | [`rule::sync::filter`], [`engine::sync::profile`] |
//! | ssh:// refuses a host or a key | [`edge::ssh`], its `host_key` and `login` |
//! | a server is kept out of its directory (5) | [`engine::sync::marker`]; what brings it to an end: the `recover` of [`engine::sync::journal`] |
//! | `repl-status` says `stale`, or another state or alarm than expected | [`rule::status::judge`]; what it has read: [`engine::status`]; how it is printed: [`rule::status`] |
//! | a sender is refused (5): an epoch, another instance | [`engine::role`]: what it says of itself; [`engine::site::master`]: what was pinned |
//! | who is the master, what is paused | `repl-role show`, `where`; [`engine::role::record`], [`engine::role::pause`] |
//! | a switchover failed, or was killed | run it again; its order: [`engine::role::switchover`], the other site's part: [`engine::role::promote`], servers: [`engine::role::database`] |
//! | who holds the lock (7) | [`edge::lock`] |
//! | a message has the wrong priority in the journal, or is no JSON | [`cli::voice`] |
//! | `--on-error` calls too often, or not at all | [`rule::alert`] (when it is due), [`cli::alert`] (what is trouble) |
//! | systemd restarts it | [`cli::narrate`] (ready, watchdog), `scripts/systemd` |

pub mod cli;
pub mod edge;
pub mod engine;
pub mod rule;
pub mod value;
