//! Ports against the tables of their originals, the simulation against queueing theory, readers against bad files.

mod command;
mod hpa_behavior;
mod hpa_calculator;
mod keda;
mod kpa;
mod kpa_windows;
mod kpa_zero;
mod readers;
mod replay;
