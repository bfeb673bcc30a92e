mod hostile;
mod net;
mod rings;
mod table;
