"""Adapters of PEFT's other methods, merged by PEFT itself, a layer at a time. The only conversion that needs torch."""
