//! The end-to-end tests: the real application, a real receiver, and a clock that is moved by hand where time matters.
//!
//! They come in by the same door as `main`. The modules are in the order of a job's way.

#[cfg(test)]
mod scenes;
#[cfg(test)]
mod support;

#[cfg(test)]
mod auth;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod forms;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hostile_values;
#[cfg(test)]
mod strangers;
#[cfg(test)]
mod tenants;

#[cfg(test)]
mod changes;
#[cfg(test)]
mod contents;
#[cfg(test)]
mod groups;
#[cfg(test)]
mod hang_ups;
#[cfg(test)]
mod inheritance;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod merging;
#[cfg(test)]
mod metadata;
#[cfg(test)]
mod once;
#[cfg(test)]
mod side_by_side;

#[cfg(test)]
mod schedule_next;
#[cfg(test)]
mod schedule_verbs;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod skipped_runs;
#[cfg(test)]
mod times;
#[cfg(test)]
mod timetable;

#[cfg(test)]
mod breaker;
#[cfg(test)]
mod clock_jumps;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod consumers;
#[cfg(test)]
mod deliver;
#[cfg(test)]
mod exhaustion;
#[cfg(test)]
mod guard;
#[cfg(test)]
mod ordering;
#[cfg(test)]
mod pauses;
#[cfg(test)]
mod proxies;
#[cfg(test)]
mod pull;
#[cfg(test)]
mod python;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod replacing;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod resolving;
#[cfg(test)]
mod retry;
#[cfg(test)]
mod simulate;
#[cfg(test)]
mod stalls;
#[cfg(test)]
mod tls;

#[cfg(test)]
mod alerts;
#[cfg(test)]
mod answers;
#[cfg(test)]
mod auth_headers;
#[cfg(test)]
mod canary;
#[cfg(test)]
mod compat;
#[cfg(test)]
mod custom_plugin;
#[cfg(test)]
mod egress;
#[cfg(test)]
mod events;
#[cfg(test)]
mod exceptions;
#[cfg(test)]
mod key_grants;
#[cfg(test)]
mod languages;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod many_plugins;
#[cfg(test)]
mod observers;
#[cfg(test)]
mod presets;
#[cfg(test)]
mod quarantine;
#[cfg(test)]
mod redirects;
#[cfg(test)]
mod shadow;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod versions;
#[cfg(test)]
mod webhooks;

#[cfg(test)]
mod author;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod cli_bytes;
#[cfg(test)]
mod cli_people;
#[cfg(test)]
mod config;
#[cfg(test)]
mod dev;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod inspect;
#[cfg(test)]
mod links;
#[cfg(test)]
mod oci;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod readiness;
#[cfg(test)]
mod scaffolds;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod signers;
#[cfg(test)]
mod tutorial;
#[cfg(test)]
mod uploads;
#[cfg(test)]
mod wit;

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod migrate;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod postgres;

#[cfg(test)]
mod tidy;
#[cfg(test)]
mod upgrade;
