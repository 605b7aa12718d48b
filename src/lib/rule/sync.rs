//! What a directory sync decides from bytes alone: which names take part, how digests of parts make the digest of a
//! file, where bytes moved to, what the two ends say to each other.

pub mod filter;
pub mod item;
pub mod merkle;
pub mod roll;
pub mod wire;
