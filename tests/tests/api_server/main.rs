//! The agent behind an API server: one that is away, one that does wrong, a real one, and the Service that leads to it.

mod away;
mod faults;
mod own_service;
mod past_the_tables;
mod real;
