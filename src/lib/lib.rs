//! stub
pub mod cli;
pub mod edge;
pub mod engine;
pub mod rule;
pub mod value;
