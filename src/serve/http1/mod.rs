//! Bytes ⇄ meaning: HTTP/1.1 and 1.0 framing (RFC 9112), without a socket and without a clock.

pub mod body;
pub mod encode;
mod grammar;
pub mod head;
pub mod path;
pub mod refusal;

pub use body::{BodyDecoder, Step};
pub use head::{Field, Framing, Head, HeadLimits, Span, Version};
pub use refusal::Refusal;
