//! Programs of the distribution in pods: resolvers, clients and servers that reach each other through Services.

mod busybox;
mod curl;
mod dig;
mod dnsmasq;
mod getent;
mod go;
mod iperf3;
mod lookup;
mod musl;
mod nginx;
mod node;
mod python;
mod redis;
mod trial;
mod unbound;
mod writers;
