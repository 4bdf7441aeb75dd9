//! MX sites, policy resolution, pacing and the retry schedule, in virtual time.
