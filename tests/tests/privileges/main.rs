//! What the agent is able to do, and what it is not: capabilities, system calls, files, what it tells, and what its
//! clients can do to it. Each list is kept here, and a longer one fails.

mod capabilities;
mod hostile_clients;
mod pins;
mod secrets;
mod system_calls;
