package conf

// ParseSize reads a size as logfile_maxbytes= and -y give it: 10, 10KB, 10MB, 10GB.
func ParseSize(s string) (int64, error) { return byteSize(s) }
