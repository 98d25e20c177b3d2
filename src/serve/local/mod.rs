//! Answered without Python: what a reactor can say by itself. Pure thinking parts; the corridor carries out what they decide.

pub mod block;
pub mod cache;
pub mod files;
