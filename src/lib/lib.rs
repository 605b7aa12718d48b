//! stub
pub mod rule;
pub mod value;
