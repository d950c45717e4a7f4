//! The mesh under test, in one piece and on real guests.

pub mod mesh;
pub mod real_host;
pub mod tools;
pub mod wait;
pub mod web;
