//! A store in one file, shared by the processes of one machine.
