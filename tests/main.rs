//! The end-to-end tests: the real application, a real receiver, and a clock that is moved by hand where time matters.
//!
//! They come in by the same door as `main`. The modules are in the order of a job's way.

#![cfg(test)]

mod support;

mod arguments;
mod audit;
mod audit_changes;
mod auth;
mod bad_input;
mod bounds;
mod confined_tokens;
mod first_token;
mod foreign_text;
mod forms;
mod fuzz;
mod hostile_values;
mod http2;
mod https;
mod memory;
mod quotas;
mod reverse_proxies;
mod strangers;
mod tenant_ends;
mod tenants;
mod tokens;
#[cfg(test)]
mod web_pages;

mod changes;
mod contents;
mod groups;
mod hang_ups;
mod inheritance;
mod jobs;
mod merging;
mod metadata;
mod once;
mod side_by_side;
mod unreadable;

mod schedule_next;
mod schedule_verbs;
mod schedules;
mod skipped_runs;
mod times;
mod timetable;

mod breaker;
mod client_certificates;
mod clock_jumps;
mod connections;
mod consumers;
mod deliver;
mod exhaustion;
mod guard;
mod http2_receivers;
mod ordering;
mod pauses;
mod proxies;
mod pull;
mod python;
mod refusals;
mod replacing;
mod replay;
mod resolving;
mod retry;
mod shares;
mod simulate;
mod stalls;
mod tls;

mod alerts;
mod answers;
mod auth_headers;
mod canary;
mod compat;
mod custom_plugin;
mod egress;
mod events;
mod exceptions;
mod hmac;
mod key_grants;
mod key_origins;
mod languages;
mod limits;
mod many_plugins;
mod observers;
mod presets;
mod quarantine;
mod redirects;
mod shadow;
mod shared_plugins;
mod streams;
mod versions;
mod webhooks;

mod author;
mod cli;
mod cli_bytes;
mod cli_people;
mod config;
mod damaged_file;
mod dev;
mod drain;
mod encryption;
mod error_codes;
mod full_disk;
mod inspect;
mod links;
mod master_key;
mod oci;
mod openapi;
mod operator;
mod pages;
mod readiness;
mod scaffolds;
mod secrets;
mod signers;
mod tutorial;
mod uploads;
mod wit;

mod cluster;
mod crash;
mod migrate;
mod nodes;
mod postgres;

mod tidy;
mod upgrade;
