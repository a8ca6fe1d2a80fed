//! The real binary, run as a person or a pipeline runs it.
#![allow(missing_docs, reason = "a test's name is its sentence")]

mod check;

mod creds;

mod documentation;

mod explain;

mod help;

mod support;
