//! PID 1 of a Coracle machine.
