package bus

// Attach returns what is kept under key for as long as the connection, and makes it the first time. Packages that need
// state a connection use it with a key of a type of their own.
func (c *Conn) Attach(key any, make func() any) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.attached[key]
	if !ok {
		v = make()
		if c.attached == nil {
			c.attached = map[any]any{}
		}
		c.attached[key] = v
	}
	return v
}
