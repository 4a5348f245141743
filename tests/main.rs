//! All process tests: one program, so that it is linked once. Each module tells its stories on clusters of its own.

mod acknowledged_writes;
mod anti_entropy;
mod beginnings;
mod bucket_settings;
mod command_line;
mod consistency;
mod crowds;
mod deletions;
mod expiry;
mod figures;
mod given_up;
mod handoff;
mod judge;
mod lost_disks;
mod network_cut;
mod paused_replica;
mod read_repair;
mod repeated_requests;
mod restarts;
mod ring_changes;
mod ring_commands;
mod ring_under_load;
mod siblings;
mod smoke;
mod traces;
