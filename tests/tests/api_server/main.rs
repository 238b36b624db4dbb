//! The agent with an API server: an unavailable one, a faulty one, a real one, and the Service that leads to it.

mod away;
mod faults;
mod own_service;
mod past_the_tables;
mod real;
